"""The store and the order of training."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from dip.data.dataset import ImageStore, ShardedImages, load_batch
from dip.data.manifest import read_manifest
from dip.data.order import TrainingOrder
from dip.paths import Store

CPU = torch.device("cpu")


@pytest.fixture
def images(workplace: Path) -> ImageStore:
    return ImageStore(Store.of("photos"))


@pytest.mark.parametrize(
    "damage",
    [
        "manifest",
        "images",
        "labels",
        "label",
        "short",
        "cut",
        "empty",
        "magic",
        "header",
        "dtype",
        "old",
        "path",
        "json",
    ],
)
def test_unusable_store_says_how_to_mend_it(workplace: Path, damage: str) -> None:
    """Wrong: a training would start on half a dataset, or end in a traceback."""
    target = Store.of("photos")
    manifest = read_manifest(target)
    shard, labels = target.folder / manifest.shards[0].file, target.folder / manifest.labels.file
    text = target.manifest.read_text()
    if damage in ("manifest", "images", "labels"):
        {"manifest": target.manifest, "images": shard, "labels": labels}[damage].unlink()
    elif damage == "label":
        np.save(labels, np.load(labels) ^ 4)
    elif damage == "short":
        np.save(labels, np.zeros(3, np.int64))
    elif damage == "cut":
        shard.write_bytes(shard.read_bytes()[:-5])
    elif damage == "empty":
        shard.write_bytes(b"")
    elif damage == "magic":
        shard.write_bytes(b"\0" + shard.read_bytes()[1:])
    elif damage == "header":
        labels.write_bytes(labels.read_bytes().replace(b"}", b" "))
    elif damage == "dtype":
        np.save(shard, np.zeros((16, 8, 8, 3)))
    elif damage == "old":
        target.manifest.write_text('{"class_names": ["a"]}')
    elif damage == "path":
        target.manifest.write_text(text.replace(shard.name, f"../photos/{shard.name}"))
    else:
        target.manifest.write_text(text[:-5])
    with pytest.raises(ValueError, match=r"data/photos: .*prepare it again with `dip prepare photos`") as refused:
        ImageStore(target)
    assert "allow_pickle" not in str(refused.value)  # advice to run what may be code


@pytest.fixture
def sharded() -> tuple[ShardedImages, np.ndarray]:
    """Shards of 3, 1 and 4 images, and the same images in one array."""
    whole = np.random.default_rng(0).integers(0, 256, (8, 2, 2, 3), np.uint8)
    return ShardedImages([whole[:3], whole[3:4], whole[4:]]), whole


@pytest.mark.parametrize(
    "chosen", [0, 3, -1, slice(None), slice(2, 5), slice(6, 1, -2), [7, 0, 3, 3], np.array([[1, 5], [4, 0]]), []]
)
def test_shards_are_indexed_like_one_array(sharded: tuple[ShardedImages, np.ndarray], chosen: object) -> None:
    """Wrong: images at the edges of shards would be others, and their labels wrong."""
    images, whole = sharded
    chosen = np.asarray(chosen, np.int64) if isinstance(chosen, list) else chosen
    np.testing.assert_array_equal(images[chosen].reshape(whole[chosen].shape), whole[chosen])
    assert images.shape == whole.shape and len(images) == 8 and images.dtype == np.uint8 and images.ndim == 4
    np.testing.assert_array_equal(np.asarray(images), whole)


def test_index_out_of_range_is_an_error(sharded: tuple[ShardedImages, np.ndarray]) -> None:
    """Wrong: an image of another place would be taken."""
    for chosen in (8, -9, np.array([0, 8])):
        with pytest.raises(IndexError):
            sharded[0][chosen]


def test_images_cannot_be_changed_through_the_store(images: ImageStore) -> None:
    """Wrong: a transformation in place would be written to the data."""
    before = images.images[0]
    images.images[0][:] = 0
    np.testing.assert_array_equal(images.images[0], before)
    assert not np.asarray(images.images).flags.writeable


def test_many_shards_can_be_open(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: ImageNet at 512 pixels would fail with too many open files."""
    seen = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (256, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: seen.append(limits))
    ImageStore(Store.of("photos"))
    assert seen == [(513, 4096)]


def test_epoch_has_every_image_once() -> None:
    """Wrong: some images would be trained on twice as often."""
    order = TrainingOrder(17, 4, seed=0)
    epochs = [np.concatenate([order.indices(4 * epoch + step) for step in range(4)]) for epoch in range(3)]
    for epoch in epochs:
        assert len(set(epoch.tolist())) == 16
    assert any(epochs[0] != epochs[1])
    assert len(set(np.concatenate(epochs).tolist())) == 17, "the image that is dropped changes"


def test_order_depends_on_seed_and_step_alone() -> None:
    """Wrong: a resumed training would see other batches."""
    order = TrainingOrder(17, 4, seed=0)
    assert order.indices(5).tolist() == [4, 1, 16, 7], "of any version"
    forwards = [order.indices(step).copy() for step in range(12)]
    again = TrainingOrder(17, 4, seed=0)
    for step in reversed(range(12)):
        np.testing.assert_array_equal(again.indices(step), forwards[step])
    assert any((TrainingOrder(17, 4, seed=1).indices(step) != forwards[step]).any() for step in range(4))


def test_batch_is_in_minus_one_to_one(images: ImageStore) -> None:
    """Wrong: the model would learn another range of pixels than the sampler writes, or other labels."""
    order = TrainingOrder(16, 4, seed=0)
    x_1, y = load_batch(images, order, 2, flip=False, device=CPU)
    indices = order.indices(2)
    assert x_1.shape == (4, 3, 8, 8) and x_1.dtype == torch.float32 and y.dtype == torch.int64
    expected = images.images[indices].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(x_1.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(y.numpy(), images.labels[indices])


def test_half_of_the_images_are_flipped(images: ImageStore) -> None:
    """Wrong: images would be flipped vertically, always, or differently after a resume."""
    order = TrainingOrder(16, 8, seed=0)
    flipped = 0
    for step in range(50):
        plain, _ = load_batch(images, order, step, flip=False, device=CPU)
        x_1, _ = load_batch(images, order, step, flip=True, device=CPU)
        again, _ = load_batch(images, order, step, flip=True, device=CPU)
        assert torch.equal(x_1, again)
        for a, b in zip(plain, x_1, strict=True):
            is_flipped = torch.equal(a.flip(-1), b)
            assert is_flipped or torch.equal(a, b)
            flipped += is_flipped
    assert 160 < flipped < 240
