"""Image folders, and a person's own images from there to samples: the worked example of docs/data.md, smaller."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import encoded, picture, write_folder

from dip import cli
from dip.data.dataset import ImageStore
from dip.data.decode import decode
from dip.data.folder import FolderSource
from dip.data.prepare import prepare
from dip.data.source import open_source
from dip.paths import RunFolder, Store
from dip.schema import ImageFolder, ImageNet

Make = Callable[..., ImageNet]
Files = dict[str, bytes]
JPEG = encoded(picture())
ENTRIES = {
    "datasets": "birds: {kind: folder, source: $BIRDS, image_size: 8, num_classes: 2, num_images: 99}",
    "evaluation": "birds: {title: Inception, image_size: 8, extractor: {name: inception}, "
    "reference: {kind: dataset, dataset: birds, num_images: 5}, num_samples: 6}",
    "runs": "birds: {study: demo, dataset: birds, model: {base: dip}, training: {base: short}, "
    "sampling: {base: euler}, evaluation: birds}",
}


def test_images_without_classes_are_one_class(tmp_path: Path, settings: Make) -> None:
    """Wrong: a folder of images could not be used without sorting it."""
    folder = write_folder(tmp_path / "images", {"b.png": JPEG, "a.JPG": JPEG, "notes.txt": b""})
    source = open_source("x", settings(folder, num_classes=1, num_images=2))
    assert source.classes == ["images"] and source.labels.tolist() == [0, 0]
    assert source.part(0, 2).names == ["a.JPG", "b.png"]


def test_folders_within_a_class_belong_to_it(tmp_path: Path) -> None:
    """Wrong: images in folders of folders would be missing."""
    folder = write_folder(tmp_path / "images", {"cat/b/1.png": JPEG, "cat/a/1.png": JPEG, "dog/1.png": JPEG})
    (tmp_path / "elsewhere").mkdir()
    write_folder(tmp_path / "elsewhere", {"1.png": JPEG})
    (folder / "bird").symlink_to(tmp_path / "elsewhere")
    source = FolderSource.open(folder)
    assert source.classes == ["bird", "cat", "dog"] and source.labels.tolist() == [0, 1, 1, 2]
    assert source.part(0, 4).names == ["bird/1.png", "cat/a/1.png", "cat/b/1.png", "dog/1.png"]


def test_folders_that_cannot_be_used(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: a class would never be learned, images would be left out, or a traceback would end it."""
    folder = write_folder(tmp_path / "train", files)
    (folder / "n03").mkdir()
    with pytest.raises(ValueError, match=r"train/n03: no images; every class needs at least one"):
        open_source("x", settings(folder))
    (folder / "n03").rmdir()
    (folder / "loose.png").write_bytes(JPEG)
    with pytest.raises(ValueError, match=r"1 images \(loose.png, ...\) lie beside 2 folders \(n01440764, ...\)"):
        open_source("x", settings(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no images; expected a folder of class folders"):
        open_source("x", settings(tmp_path / "empty"))
    os.mkdir(bytes(tmp_path) + b"/odd")  # noqa: PTH102 - a name that is no text
    with open(bytes(tmp_path) + b"/odd/\xff.png", "wb"):  # noqa: PTH123
        pass
    with pytest.raises(ValueError, match="is not UTF-8; rename it"):
        open_source("x", settings(tmp_path / "odd"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["cat/1.jpg", "dog/1.HEIC", "dog/2.avif"],
            r"/dog: no images, but files that end in \.HEIC, \.avif; images end",
        ),
        (
            ["0.tar", "1.tar", "README"],
            r"images: no images, but files that end in \.tar; images end in \.bmp, \.gif, .*",
        ),
        (
            ["train/cat/1.png", "val/cat/1.png"],
            r"images: its folders are splits \(train, val\); give '.*/images/train'",
        ),
        (
            ["ILSVRC/Data/CLS-LOC/train/n01440764/1.JPEG", "ILSVRC/Data/CLS-LOC/val/1.JPEG", "LOC_synset_mapping.txt"],
            r"images: Kaggle's download of ImageNet; give '.*/images/ILSVRC/Data/CLS-LOC/train'",
        ),
        (
            ["Data/CLS-LOC/train/n01440764/1.JPEG", "Annotations/CLS-LOC/train/n01440764/1.xml"],
            r"images: Kaggle's download of ImageNet; give '.*/images/Data/CLS-LOC/train'",
        ),
    ],
)
def test_other_folders_say_what_to_give(tmp_path: Path, settings: Make, names: list[str], message: str) -> None:
    """Wrong: photographs of another format would look like none, and splits, or folders of those, like classes."""
    folder = write_folder(tmp_path / "images", dict.fromkeys(names, JPEG))
    with pytest.raises(ValueError, match=message):
        open_source("x", settings(folder))


def test_names_may_be_anything(tmp_path: Path, own: Callable[..., ImageFolder], store: Store) -> None:
    """Wrong: an image would be lost over its name, or two classes be one."""
    names = ["Cat/a b.jpg", 'Cat/猫 é\n,".jpg', "cat/1.jpg/2.jpg", "cat/x.PNG", "cat.jpg/1.JPEG"]
    images = {name: encoded(picture(9, 9, seed), "PNG") for seed, name in enumerate(names)}
    prepare("x", own(write_folder(tmp_path / "images", images), num_classes=3), store)
    found = ImageStore(store)
    assert found.class_names == ["Cat", "cat", "cat.jpg"] and found.labels.tolist() == [0, 0, 1, 1, 2]
    (index,) = store.folder.glob("index-*.csv")
    with index.open(newline="") as file:
        assert [row["origin"] for row in csv.DictReader(file)] == names
    for place, name in enumerate(names):
        np.testing.assert_array_equal(found.images[place], decode(images[name], 8, upright=True))


def test_a_pipe_is_no_image(tmp_path: Path, own: Callable[..., ImageFolder], store: Store) -> None:
    """Wrong: the preparation would wait for ever."""
    folder = write_folder(tmp_path / "images", {"a/1.png": JPEG})
    os.mkfifo(folder / "a/2.png")
    with pytest.raises(ValueError, match=r"the first is a/2\.png \(empty file, a pipe, or a link"):
        prepare("x", own(folder, num_classes=1, num_images=2), store)


def test_a_file_that_may_not_be_read_ends_it(tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: images of another user would be skipped as damaged, or nobody would know which to make readable."""
    folder = write_folder(tmp_path / "images", {"a/1.png": JPEG, "a/2.png": JPEG})
    part = open_source("x", settings(folder, num_classes=1, num_images=2)).part(0, 2)

    def refuse(path: Path, mode: str) -> Any:  # as for anybody but root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*a/1\.png'"):
        list(part.read())


@pytest.mark.slow
def test_own_images_are_trained_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong: nobody could use DiP on images of their own."""
    names = [f"{bird}/{number}.png" for bird in ("robin", "wren") for number in range(4)]
    images = {name: encoded(picture(20, 30, seed), "PNG") for seed, name in enumerate(names)}
    monkeypatch.setenv("BIRDS", str(write_folder(workplace / "birds", images)))
    path = workplace / "params.yaml"
    text = path.read_text()
    for section, entry in ENTRIES.items():
        text = text.replace(f"{section}:\n", f"{section}:\n  {entry}\n", 1)
    path.write_text(text)
    with pytest.raises(SystemExit, match=r"datasets\.birds\.num_images is 99, .* write num_images: 8"):
        cli.main(["prepare", "birds"])
    path.write_text(text.replace("num_images: 99}", "num_images: 8}"))
    for command in ("prepare", "verify", "train", "sample"):
        cli.main([command, "birds"])
    samples = np.load(RunFolder.of("demo", "birds").samples)
    assert samples["arr_0"].shape == (6, 8, 8, 3) and set(samples["labels"].tolist()) == {0, 1}
