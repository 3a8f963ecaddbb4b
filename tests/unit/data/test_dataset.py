"""The store and the order of training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dip.data.dataset import ImageStore, TrainingOrder, load_batch
from dip.data.prepare import prepare
from dip.files import sha256
from dip.paths import Store
from dip.schema import Photographs

CPU = torch.device("cpu")


@pytest.fixture
def store(workplace: Path) -> ImageStore:
    return ImageStore(Store.of("photos"))


def test_photographs_become_a_store(tmp_path: Path) -> None:
    """Wrong: the manifest, on which the state of trainings depends, would not describe the data."""
    target = Store(tmp_path / "store")
    settings = Photographs(kind="photographs", image_size=8, photographs=("coins", "chelsea"), crops_per_class=3)
    prepare("photos", settings, target)
    store = ImageStore(target)
    assert store.images.shape == (6, 8, 8, 3) and len(store) == 6
    assert store.class_names == ["coins", "chelsea"]
    assert store.manifest["sha256"] == {path.name: sha256(path) for path in (target.images, target.labels)}
    first = target.manifest.read_bytes()
    prepare("photos", settings, target)
    assert target.manifest.read_bytes() == first, "preparing again changes nothing"


@pytest.mark.parametrize("damage", ["manifest", "images", "labels", "short", "cut", "dtype"])
def test_unusable_store_says_how_to_mend_it(workplace: Path, damage: str) -> None:
    """Wrong: a training would start on half a dataset, or end in a traceback."""
    target = Store.of("photos")
    if damage in ("manifest", "images", "labels"):
        getattr(target, damage).unlink()
    elif damage == "short":
        np.save(target.labels, np.zeros(3, np.int64))
    elif damage == "cut":
        target.images.write_bytes(target.images.read_bytes()[:-5])
    else:
        np.save(target.images, np.zeros((16, 8, 8, 3)))
    with pytest.raises(ValueError, match=r"data/photos: .*prepare it again with `dip prepare`"):
        ImageStore(target)


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
    forwards = [order.indices(step).copy() for step in range(12)]
    again = TrainingOrder(17, 4, seed=0)
    for step in reversed(range(12)):
        np.testing.assert_array_equal(again.indices(step), forwards[step])
    assert any((TrainingOrder(17, 4, seed=1).indices(step) != forwards[step]).any() for step in range(4))


def test_batch_is_in_minus_one_to_one(store: ImageStore) -> None:
    """Wrong: the model would learn another range of pixels than the sampler writes, or other labels."""
    order = TrainingOrder(16, 4, seed=0)
    x_1, y = load_batch(store, order, 2, flip=False, device=CPU)
    indices = order.indices(2)
    assert x_1.shape == (4, 3, 8, 8) and x_1.dtype == torch.float32 and y.dtype == torch.int64
    expected = store.images[indices].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(x_1.numpy(), expected, atol=1e-6)
    np.testing.assert_array_equal(y.numpy(), store.labels[indices])


def test_half_of_the_images_are_flipped(store: ImageStore) -> None:
    """Wrong: images would be flipped vertically, always, or differently after a resume."""
    order = TrainingOrder(16, 8, seed=0)
    flipped = 0
    for step in range(50):
        plain, _ = load_batch(store, order, step, flip=False, device=CPU)
        x_1, _ = load_batch(store, order, step, flip=True, device=CPU)
        again, _ = load_batch(store, order, step, flip=True, device=CPU)
        assert torch.equal(x_1, again)
        for a, b in zip(plain, x_1, strict=True):
            is_flipped = torch.equal(a.flip(-1), b)
            assert is_flipped or torch.equal(a, b)
            flipped += is_flipped
    assert 160 < flipped < 240


def test_manifest_is_json(workplace: Path) -> None:
    """Wrong: a damaged manifest would end in a traceback."""
    target = Store.of("photos")
    target.manifest.write_text(json.dumps({"class_names": ["a"]})[:-3])
    with pytest.raises(ValueError, match="no usable dataset"):
        ImageStore(target)
