"""Crops of photographs: no pixel is both in training and in the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dip.data import photographs
from dip.data.packaged import copy_of, copy_photograph, packaged
from dip.data.photographs import held_out_crops, load_photograph, training_crops
from dip.schema import Photographs


def dataset(**settings: object) -> Photographs:
    content = {"kind": "photographs", "image_size": 16, "photographs": ("coins", "chelsea"), "crops_per_class": 200}
    return Photographs(**(content | settings))


def index_image(height: int, width: int, block: int = 1) -> np.ndarray:
    """An image whose every block of pixels has a colour of its own."""
    y, x = (np.indices((height, width)) // block).astype(np.int64)
    return np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)


def colours(images: np.ndarray) -> set[int]:
    return set(np.unique(images.reshape(-1, 3).astype(np.int64) @ [1, 256, 65536]).tolist())


@pytest.mark.parametrize(("shape", "box"), [((90, 151), 1), ((64, 130), 1), ((120, 300), 2), ((40, 400), 1)])
def test_held_out_pixels_are_in_no_training_crop(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], box: int
) -> None:
    """Wrong: memorised training crops would score as if they were generalisation."""
    monkeypatch.setattr(photographs, "load_photograph", lambda name: index_image(*shape, block=box))
    settings = dataset(box_filter=box, crops_per_class=500)
    training, _ = training_crops(settings)
    reference, _ = held_out_crops(settings, 1000, seed=1)
    seen, held = colours(training), colours(reference)
    assert not seen & held
    everything = len(colours(index_image(*shape, block=box)))
    assert len(seen | held) > 0.9 * everything, "crops come from everywhere else"


def test_crops_are_cut_out_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: crops would be mixed from several places or transposed."""
    monkeypatch.setattr(photographs, "load_photograph", lambda name: index_image(90, 150))
    images, _ = training_crops(dataset())
    corner = images[:, :1, :1, :2].astype(int)
    y, x = np.indices((16, 16))
    np.testing.assert_array_equal(images[..., 0], corner[..., 0] + x)
    np.testing.assert_array_equal(images[..., 1], corner[..., 1] + y)


def test_classes_are_interleaved_and_equally_frequent() -> None:
    """Wrong: a class would be missing where only part of the crops is taken."""
    images, labels = training_crops(dataset(crops_per_class=5))
    assert images.shape == (10, 16, 16, 3) and images.dtype == np.uint8
    assert labels.tolist() == [0, 1] * 5
    images, labels = held_out_crops(dataset(), 7, seed=1)
    assert len(images) == 7 and labels.tolist() == [0, 1, 0, 1, 0, 1, 0]


def test_crops_depend_on_their_seed_alone() -> None:
    """Wrong: preparing the data again would train everything again, or seeds would do nothing."""
    first, again, other = (training_crops(dataset(seed=seed, crops_per_class=9))[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (held_out_crops(dataset(), 6, seed=1)[0] != held_out_crops(dataset(), 6, seed=2)[0]).any()


@pytest.mark.parametrize("name", ["astronaut", "camera", "china"])
def test_photographs_are_rgb(name: str) -> None:
    """Wrong: grey photographs or those of scikit-learn would have another shape."""
    pixels = load_photograph(name)
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.flags.c_contiguous


def test_unknown_photograph_is_named() -> None:
    """Wrong: any function of skimage.data could be called by a name in params.yaml."""
    with pytest.raises(ValueError, match="there is no photograph 'download_all'; there are astronaut, brick"):
        load_photograph("download_all")


PNG = b"\x89PNG\r\n\x1a\n"
SHORT = PNG + b"\0\0\0\4IHDR\0\0\0\10\xfc\xd5aR"  # a chunk that is right but for its length


@pytest.mark.parametrize("content", [b"", b"no image", PNG + b" broken", SHORT])
def test_unreadable_photograph_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Wrong: a traceback out of a decoder."""
    monkeypatch.chdir(tmp_path)
    copy_photograph("coins")
    copy_of("coins").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"photograph 'coins': data/photographs/coins.png cannot be read .*dip photograph"
    ):
        training_crops(dataset())


def test_the_copy_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a photograph that was changed in data/photographs would change no result."""
    monkeypatch.chdir(tmp_path)
    shipped = load_photograph("chelsea")
    copy_photograph("chelsea")
    assert copy_of("chelsea").read_bytes() == packaged("chelsea").read_bytes()
    np.testing.assert_array_equal(load_photograph("chelsea"), shipped)
    Image.fromarray(255 - shipped).save(copy_of("chelsea"))
    np.testing.assert_array_equal(load_photograph("chelsea"), 255 - shipped)


def test_missing_package_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a traceback where scikit-image is not installed."""
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"photograph 'coins': .*coins.png is missing; reinstall scikit-image"):
        packaged("coins")


def test_photograph_too_small_says_what_to_change() -> None:
    """Wrong: numpy's own error about empty ranges."""
    with pytest.raises(ValueError, match=r"'coins' is 48 x 37 pixels .* too small for crops of 32 with 25% held out"):
        training_crops(dataset(image_size=32, box_filter=8))
