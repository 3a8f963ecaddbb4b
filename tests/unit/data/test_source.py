"""Listing and reading a source, whatever its layout."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import encoded, picture, write_folder, write_parquet, write_tar_of_tars

from dip.data.source import Source, open_source
from dip.schema import ImageNet

Make = Callable[..., ImageNet]
Files = dict[str, bytes]
JPEG = encoded(picture())


def read_all(source: Source) -> dict[str, bytes]:
    """Names and contents, in order."""
    part = source.part(0, len(source.labels))
    return dict(zip(part.names, part.read(), strict=True))


def test_folder_and_tar_list_alike(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: labels would not be those of the sorted synsets, or depend on how ImageNet was downloaded."""
    folder = write_folder(tmp_path / "train", files)
    (folder / ".cache").mkdir()
    for name in (".DS_Store", "n01440764/._n01440764_0.JPEG", "n01440764/readme.txt"):
        (folder / name).write_bytes(b"no image")
    archive = write_tar_of_tars(tmp_path / "train.tar", files)
    for path in (folder, archive):
        source = open_source("x", settings(path))
        assert source.classes == ["n01440764", "n02110341"] and source.labels.tolist() == [0, 0, 0, 1, 1]
        assert list(read_all(source).items()) == sorted(files.items())
        part = source.part(1, 4)
        assert part.names == sorted(files)[1:4] and list(part.read()) == [files[name] for name in part.names]


def test_hidden_folders_are_left_out(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: copies that an editor keeps (Jupyter's, for example) would be trained on beside the images."""
    hidden = {f"n01440764/{folder}/n01440764_0.JPEG": JPEG for folder in (".ipynb_checkpoints", "more/.thumbnails")}
    folder = write_folder(tmp_path / "train", files | hidden)
    archive = write_tar_of_tars(tmp_path / "train.tar", files | hidden)
    for path in (folder, archive):
        assert list(read_all(open_source("x", settings(path)))) == sorted(files)


def test_hidden_files_are_no_archives(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: what a Mac leaves beside files would be a class without images, or a download that is damaged."""
    write_tar_of_tars(tmp_path / "train.tar", files)
    with tarfile.open(tmp_path / "train.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("./._n01440764.tar"))
    parquet = write_parquet(tmp_path / "hf/0.parquet", list(files.values()), [1, 1, 0, 0, 0])
    (parquet.parent / "._0.parquet").write_bytes(b"\0\5\x16\7")
    for path in (tmp_path / "train.tar", parquet.parent):
        assert sorted(read_all(open_source("x", settings(path))).values()) == sorted(files.values())


def test_another_image_of_the_same_name_is_noticed(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: a file that was replaced would not be decoded again."""
    folder = write_folder(tmp_path / "train", files)
    before = open_source("x", settings(folder)).part(0, 5).describe()
    write_folder(folder, {"n01440764/n01440764_1.JPEG": b"another"})
    after = open_source("x", settings(folder)).part(0, 5).describe()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"datasets\.x\.source is not set"),
        ("$DIP_TEST_UNSET", r"datasets\.x\.source is '\$DIP_TEST_UNSET', and the environment variable DIP_TEST_UNSET"),
        ("/nowhere/at/all", r"datasets\.x\.source: there is nothing at '/nowhere/at/all'"),
    ],
)
def test_missing_source_names_the_setting(settings: Make, given: str | None, message: str) -> None:
    """Wrong: the user would not know what to fill in."""
    with pytest.raises(ValueError, match=message):
        open_source("x", settings(given))


def test_source_may_be_an_environment_variable(
    tmp_path: Path, files: Files, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: params.yaml would have to be edited on every machine."""
    monkeypatch.setenv("DIP_TEST_SOURCE", str(write_folder(tmp_path / "train", files)))
    assert len(open_source("x", settings("$DIP_TEST_SOURCE")).labels) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 3}, r"datasets\.x\.num_classes is 3, .* 2 classes .* write num_classes: 2 and num_images: 5"),
        ({"num_images": 6}, r"datasets\.x\.num_images is 6, .* 5 images: an incomplete copy\? .* num_images: 5"),
        ({"num_images": 4}, r"datasets\.x\.num_images is 4"),
    ],
)
def test_wrong_counts_name_the_right_ones(
    tmp_path: Path, files: Files, settings: Make, changes: dict[str, int], message: str
) -> None:
    """Wrong: an incomplete copy of ImageNet would be trained on, or nobody would know what to write."""
    with pytest.raises(ValueError, match=message):
        open_source("x", settings(write_folder(tmp_path / "train", files), **changes))
