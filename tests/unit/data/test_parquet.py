"""Reading Parquet files as Hugging Face stores images."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encoded, picture, write_folder, write_parquet

from dip.data.source import open_source
from dip.schema import ImageNet

Make = Callable[..., ImageNet]
Files = dict[str, bytes]
JPEG = encoded(picture())


def test_parquet_keeps_its_order(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: images and labels of a download from Hugging Face would be mixed up."""
    contents, labels = list(files.values()), [1, 1, 0, 0, 0]
    names = ["tench, Tinca tinca", "dalmatian, coach dog"]
    write_parquet(tmp_path / "hf/data/train-00000-of-00002.parquet", contents[:4], labels[:4], names, rows=3)
    write_parquet(tmp_path / "hf/data/train-00001-of-00002.parquet", contents[4:], labels[4:], names)
    write_parquet(tmp_path / "hf/data/test-00000-of-00001.parquet", contents[:1], [-1], names)
    source = open_source("x", settings(tmp_path / "hf"))
    assert source.layout == "parquet" and source.labels.tolist() == labels and source.classes == names
    for start in range(5):
        for stop in range(start + 1, 6):
            part = source.part(start, stop)
            assert list(part.read()) == contents[start:stop]
            assert len(part.names) == len(set(part.names)) == len(part.describe()) == stop - start


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], ""),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], "default"),
        (["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"], "default/train"),
        (["plain_text/train-00000-of-00002.parquet", "plain_text/train-00001-of-00002.parquet"], ""),
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-0-of-1.parquet"], ""),
        (["data/validation-00000-of-00002.parquet", "data/validation-00001-of-00002.parquet"], ""),
        (["snapshots/3f/data/train-0-of-2.parquet", "snapshots/3f/data/train-1-of-2.parquet", ".cache/b.parquet"], ""),
    ],
)
def test_layouts_of_the_hub(tmp_path: Path, settings: Make, files: list[str], given: str) -> None:
    """Wrong: a download would have to be rearranged by hand, or test images would be trained on."""
    for number, name in enumerate(files):
        write_parquet(tmp_path / "hf" / name, [bytes([number])] * 2, [0, 1], ["a", "b"])
    (tmp_path / "hf/README.md").touch()
    source = open_source("x", settings(tmp_path / "hf" / given, num_images=4))
    assert list(source.part(0, 4).read()) == [b"\0", b"\0", b"\1", b"\1"]


def test_source_may_be_one_parquet_file(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: it would be taken for a damaged tar."""
    path = write_parquet(tmp_path / "birds.parquet", list(files.values()), [1, 1, 0, 0, 0])
    write_parquet(tmp_path / "others.parquet", [JPEG], [7])
    source = open_source("x", settings(path))
    assert source.layout == "parquet" and list(source.part(0, 5).read()) == list(files.values())
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"birds\.parquet: not a readable Parquet file"):
        open_source("x", settings(path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["cropped/train/0000.parquet", "cropped/test/0000.parquet", "full/train/0000.parquet"],
            r"x\.source: Parquet files lie in 2 folders; give it one of '.*hf/cropped/train', '.*hf/full/train'",
        ),
        (
            ["default/partial-test/0.parquet", "default/partial-train/0.parquet"],
            "one of '.*/default/partial-test', '.*",
        ),
        (
            ["data/test-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"],
            r"hf/data: Parquet files of test and validation, none of train",
        ),
    ],
)
def test_what_cannot_be_chosen_is_asked_for(tmp_path: Path, settings: Make, files: list[str], message: str) -> None:
    """Wrong: two data sets or splits would be mixed, or nobody would know what to give."""
    for name in files:
        write_parquet(tmp_path / "hf" / name, [JPEG] * 2, [0, 1])
    with pytest.raises(ValueError, match=message):
        open_source("x", settings(tmp_path / "hf", num_images=len(files) * 2))


def test_tables_in_a_folder_of_images_are_not_its_images(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: a table of embeddings that lies in a class would be taken for the data set."""
    write_folder(tmp_path / "train", files)
    write_parquet(tmp_path / "train/n01440764/embeddings.parquet", [JPEG], [0])
    assert open_source("x", settings(tmp_path / "train")).layout == "folder"


def test_files_of_two_data_sets_are_not_one(tmp_path: Path, settings: Make) -> None:
    """Wrong: the same number would stand for two classes."""
    for name, classes in (("a", ["cat", "dog"]), ("b", ["ant", "bee"])):
        write_parquet(tmp_path / f"{name}.parquet", [JPEG] * 2, [0, 1], classes)
    with pytest.raises(ValueError, match=r"b\.parquet: its classes are not those of a\.parquet"):
        open_source("x", settings(tmp_path, num_images=4))


def test_large_row_groups_are_read_in_pieces(tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: rows would be lost where a shard begins within a row group."""
    monkeypatch.setattr("dip.data.parquet._BATCH", 4)
    contents = [bytes([number]) for number in range(23)]
    write_parquet(tmp_path / "a.parquet", contents, [number % 2 for number in range(23)], rows=10)
    source = open_source("x", settings(tmp_path, num_images=23))
    assert source.classes == ["0", "1"]
    for start, stop in ((0, 23), (3, 9), (9, 11), (4, 4 + 1), (12, 23), (20, 22)):
        assert list(source.part(start, stop).read()) == contents[start:stop]


def test_rows_behind_the_last_are_not_read(tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a file of one row group, as pandas writes it, would be read to its end for each of 64 shards."""
    read, batches = [], pq.ParquetFile.iter_batches

    def watch(*arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in batches(*arguments, **options):
            read.append(len(batch))
            yield batch

    monkeypatch.setattr("dip.data.parquet._BATCH", 4)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watch)
    contents = [bytes([number]) for number in range(40)]
    write_parquet(tmp_path / "a.parquet", contents, [number % 2 for number in range(40)], rows=40)
    assert list(open_source("x", settings(tmp_path, num_images=40)).part(5, 9).read()) == contents[5:9]
    assert read == [4, 4, 4]


@pytest.mark.parametrize(
    "problem", ["damaged", "columns", "list", "label", "range", "empty", "bytes", "rows", "json", "utf8"]
)
def test_parquet_that_cannot_be_used(tmp_path: Path, settings: Make, problem: str) -> None:
    """Wrong: another data set, a test split or half a download would end in a traceback."""
    path = write_parquet(tmp_path / "hf/a.parquet", [JPEG, JPEG], [0, 1], ["a", "b"])
    messages = {
        "damaged": "not a readable Parquet file",
        "columns": r"expected the columns image \{bytes, path\} and label \(a number\), got text: string",
        "list": r"expected the columns image .*, got image: struct<bytes: list<.*: uint8>>, label: int64",
        "label": "1 rows have no label",
        "range": "a label is -1, expected 0 to 1; a test split has no labels",
        "empty": r"class 1 \(b\) has no images",
        "bytes": r"a\.parquet: row 1 has no bytes of an image",
        "rows": "the Parquet files have no rows",
        "json": r"a\.parquet: its metadata is not JSON \(.*download it again",
        "utf8": r"a\.parquet: not a readable Parquet file \('utf-8' codec can't decode",
    }
    if problem == "damaged":
        path.write_bytes(path.read_bytes()[:-10])
    elif problem == "columns":
        pq.write_table(pa.table({"text": ["a"]}), path)
    elif problem == "list":
        image = pa.array([{"bytes": list(JPEG)}] * 2, pa.struct([("bytes", pa.list_(pa.uint8()))]))
        pq.write_table(pa.table({"image": image, "label": [0, 1]}), path)
    elif problem == "rows":
        write_parquet(path, [], [])
    elif problem == "json":
        pq.write_table(pq.read_table(path).replace_schema_metadata({"huggingface": '{"info": '}), path)
    elif problem == "utf8":
        path.write_bytes(path.read_bytes().replace(b"label", b"labe\xff"))
    else:
        labels = {"label": [0, None], "range": [0, -1], "empty": [0, 0], "bytes": [0, 1]}[problem]
        write_parquet(path, [JPEG, None if problem == "bytes" else JPEG], labels, ["a", "b"])
    with pytest.raises(ValueError, match=messages[problem]):
        list(open_source("x", settings(tmp_path / "hf", num_images=2)).part(0, 2).read())


def test_labels_that_are_no_classes_take_no_memory(tmp_path: Path, settings: Make) -> None:
    """Wrong: a column of identifiers would be given a name for every number up to the largest, until memory ends."""
    write_parquet(tmp_path / "a.parquet", [JPEG, JPEG, JPEG], [2**62, 0, 1])
    with pytest.raises(ValueError, match=r"class 2 \(2\) has no images; every class needs at least one"):
        open_source("x", settings(tmp_path))


def test_a_page_is_compared_with_its_checksum(tmp_path: Path, settings: Make) -> None:
    """Wrong: an image whose bytes have changed would be trained on, though the file knows better."""
    path = write_parquet(tmp_path / "a.parquet", [JPEG, b"abcdef" * 9], [0, 1])
    pq.write_table(pq.read_table(path), path, write_page_checksum=True, compression="none", use_dictionary=False)
    part = open_source("x", settings(path, num_images=2)).part(0, 2)
    assert list(part.read()) == [JPEG, b"abcdef" * 9]
    path.write_bytes(path.read_bytes().replace(b"abcdef" * 9, b"abcdeg" * 9))
    with pytest.raises(ValueError, match=r"a\.parquet: not a readable Parquet file \(.*CRC"):
        list(part.read())


def test_a_file_that_may_not_be_read_is_not_damaged(
    tmp_path: Path, settings: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: 100 GB would be downloaded again, where they need to be made readable."""
    path = write_parquet(tmp_path / "a.parquet", [JPEG, JPEG], [0, 1])

    def refuse(*arguments: Any, **options: Any) -> Any:  # as for anybody but root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(pq, "ParquetFile", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*a\.parquet'"):
        open_source("x", settings(path))


def test_a_pointer_of_git_lfs_is_told(tmp_path: Path, settings: Make) -> None:
    """Wrong: the user of a clone would download it again, and have the same pointer."""
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match=r"a\.parquet: a pointer of Git LFS .* `git lfs pull`"):
        open_source("x", settings(tmp_path))


def test_a_damaged_page_is_told_with_its_file(tmp_path: Path, settings: Make) -> None:
    """Wrong: nobody would know which of 294 files to download again."""
    write_parquet(tmp_path / "a.parquet", [JPEG], [0])
    path = write_parquet(tmp_path / "b.parquet", [JPEG], [1])
    content = bytearray(path.read_bytes())
    content[4:40] = bytes([255]) * 36  # the first page's header
    path.write_bytes(content)
    part = open_source("x", settings(tmp_path, num_images=2)).part(0, 2)
    with pytest.raises(ValueError, match=r"b\.parquet: not a readable Parquet file \(.*download it again"):
        list(part.read())
