"""ImageNet's folders, with a few small JPEGs in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dip.data.crop import center_crop
from dip.data.dataset import ImageStore
from dip.data.prepare import prepare
from dip.paths import Store
from dip.schema import ImageNet


def settings(source: Path | str | None, **changes: int) -> ImageNet:
    content = {"kind": "imagenet", "image_size": 8, "num_classes": 2, "num_images": 5} | changes
    return ImageNet(source=None if source is None else str(source), **content)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two synsets of three and two JPEGs; one is grey, one CMYK."""
    folder = tmp_path / "train"
    rng = np.random.default_rng(0)
    for synset, count in (("n02", 2), ("n01", 3)):
        (folder / synset).mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(rng.integers(0, 256, (20 + number, 30, 3), np.uint8))
            image.convert(("RGB", "L", "CMYK")[number]).save(folder / synset / f"{synset}_{number}.JPEG")
    return folder


def test_folder_of_jpegs_becomes_a_store(tmp_path: Path, source: Path) -> None:
    """Wrong: labels would not be those of the sorted synsets, or grey images would fail."""
    target = Store(tmp_path / "store")
    prepare("folder", settings(source), target)
    store = ImageStore(target)
    assert store.images.shape == (5, 8, 8, 3)
    assert store.labels.tolist() == [0, 0, 0, 1, 1]
    assert store.class_names == ["n01", "n02"]
    assert store.manifest["images_per_class"] == [3, 2]
    with Image.open(source / "n01" / "n01_1.JPEG") as image:
        np.testing.assert_array_equal(store.images[1], center_crop(image.convert("RGB"), 8))
    assert sorted(path.name for path in target.folder.iterdir()) == ["images.npy", "labels.npy", "manifest.json"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"datasets\.folder\.source is not set"),
        ("$DIP_TEST_UNSET", r"datasets\.folder\.source is '\$DIP_TEST_UNSET', and that environment variable is not"),
        ("/nowhere/at/all", r"datasets\.folder\.source: there is no folder '/nowhere/at/all'"),
    ],
)
def test_missing_source_names_the_setting(tmp_path: Path, given: str | None, message: str) -> None:
    """Wrong: the user would not know what to fill in, or something half-made would be left."""
    with pytest.raises(ValueError, match=message):
        prepare("folder", settings(given), Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_source_may_be_an_environment_variable(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: params.yaml would have to be edited on every machine."""
    monkeypatch.setenv("DIP_TEST_SOURCE", str(source))
    prepare("folder", settings("$DIP_TEST_SOURCE"), Store(tmp_path / "store"))
    assert len(ImageStore(Store(tmp_path / "store"))) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 3}, r"2 folders of classes, expected datasets\.folder\.num_classes = 3"),
        ({"num_images": 6}, r"5 images, expected datasets\.folder\.num_images = 6"),
    ],
)
def test_wrong_counts_are_refused(tmp_path: Path, source: Path, changes: dict[str, int], message: str) -> None:
    """Wrong: an incomplete copy of ImageNet would be trained on."""
    with pytest.raises(ValueError, match=message):
        prepare("folder", settings(source, **changes), Store(tmp_path / "store"))


def test_empty_class_is_refused(tmp_path: Path, source: Path) -> None:
    """Wrong: a class would never be learned."""
    for path in (source / "n02").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"n02: no images"):
        prepare("folder", settings(source, num_images=3), Store(tmp_path / "store"))


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_corrupt_jpeg_is_named_and_earlier_data_stay(tmp_path: Path, source: Path, damage: str) -> None:
    """Wrong: nobody could find the file among 1.3 million, or the store that was there would be lost."""
    target = Store(tmp_path / "store")
    prepare("folder", settings(source), target)
    before = target.images.read_bytes()
    broken = source / "n02" / "n02_0.JPEG"
    broken.write_bytes(broken.read_bytes()[:-200] if damage == "cut" else b"not an image")
    with pytest.raises(ValueError, match=r"n02_0\.JPEG: not a readable image"):
        prepare("folder", settings(source), target)
    assert target.images.read_bytes() == before
    assert len(ImageStore(target)) == 5
