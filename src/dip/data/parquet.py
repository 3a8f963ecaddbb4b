"""Parquet files as Hugging Face stores images: columns `image` {bytes, path} and `label`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dip.data.decode import LFS_HINT, LFS_POINTER, MAX_FILE_BYTES

_BATCH = 16  # rows read at a time, some MB of JPEGs
_BUFFER = 1 << 20  # bytes read at a time, so that a file of one row group does not come into memory whole


@dataclass(frozen=True)
class ParquetPart:
    """Some rows of some files; see `dip.data.source.Part`."""

    spans: tuple[tuple[Path, int, int], ...]  # file, first row, row after the last

    @property
    def names(self) -> list[str]:
        return [f"{path.name}/{row}" for path, start, stop in self.spans for row in range(start, stop)]

    def describe(self) -> list[str]:
        sizes = {path: path.stat().st_size for path, _, _ in self.spans}
        return [f"{path.name}/{row}\t{sizes[path]}" for path, start, stop in self.spans for row in range(start, stop)]

    def read(self) -> Iterator[bytes]:
        for path, start, stop in self.spans:
            with _opened(path, buffer_size=_BUFFER, pre_buffer=False) as file:
                yield from _rows(file, path, start, stop)


@dataclass(frozen=True)
class ParquetSource:
    """Images in the order of the files; see `dip.data.source.Source`."""

    files: tuple[Path, ...]
    num_rows: tuple[int, ...]
    classes: list[str]
    labels: NDArray[np.int64]
    layout: Literal["parquet"] = "parquet"

    @classmethod
    def open(cls, files: Sequence[Path]) -> ParquetSource:
        """Read the labels and names of classes.

        Raises:
            ValueError: A file is damaged or has other columns; a label is missing or out of range; a class is empty.
        """
        labels, names = [], None
        for path in files:
            with _opened(path) as file:
                _check_columns(file.schema_arrow, path)
                found = _class_names(file.schema_arrow, path)
                if names and found and found != names:
                    raise ValueError(
                        f"{path}: its classes are not those of {files[0].name}; give files of one data set"
                    )
                names = names or found
                column = file.read(columns=["label"]).column("label")
            if column.null_count:
                raise ValueError(f"{path}: {column.null_count} rows have no label")
            labels.append(column.to_numpy().astype(np.int64))
        joined = np.concatenate(labels)
        if not len(joined):
            raise ValueError(f"{files[0].parent}: the Parquet files have no rows")
        classes = _classes(joined, names, files[0].parent)
        return cls(tuple(files), tuple(map(len, labels)), classes, joined)

    def part(self, start: int, stop: int) -> ParquetPart:
        spans, first = [], 0
        for path, count in zip(self.files, self.num_rows, strict=True):
            low, high = max(start - first, 0), min(stop - first, count)
            if low < high:
                spans.append((path, low, high))
            first += count
        return ParquetPart(tuple(spans))


@contextlib.contextmanager
def _opened(path: Path, **options: Any) -> Iterator[pq.ParquetFile]:
    """A file, whose name is told where it turns out to be damaged: pyarrow knows it no more by then."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, **options) as file:  # of pages that have one
            yield file
    except PermissionError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last over names of columns
        with contextlib.suppress(OSError), path.open("rb") as start:
            if start.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ValueError(f"{path}: {LFS_HINT}") from error
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{path}: not a readable Parquet file ({reason}); download it again") from error


def _rows(file: pq.ParquetFile, path: Path, start: int, stop: int) -> Iterator[bytes]:
    first = 0  # row of the file at which the row group begins
    for group in range(file.metadata.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        if first < stop and start < first + count:
            row = first
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=["image.bytes"], use_threads=False):
                contents = batch.column("image").field("bytes")
                for number in range(max(start, row), min(stop, row + len(batch))):
                    yield _content(contents[number - row], path, number)
                row += len(batch)
                if row >= stop:
                    return
        first += count


def _content(scalar: pa.Scalar, path: Path, row: int) -> bytes:
    buffer = scalar.as_buffer()
    if buffer is None:
        raise ValueError(
            f"{path}: row {row} has no bytes of an image; download the files with the images in them, or leave it out"
        )
    return buffer.slice(0, min(buffer.size, MAX_FILE_BYTES + 1)).to_pybytes()


def _check_columns(schema: pa.Schema, path: Path) -> None:
    image = schema.field("image").type if "image" in schema.names else pa.null()
    has_bytes = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    fits = has_bytes and image.field("bytes").type in (pa.binary(), pa.large_binary())
    if not fits or "label" not in schema.names or not pa.types.is_integer(schema.field("label").type):
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise ValueError(
            f"{path}: expected the columns image {{bytes, path}} and label (a number), got {found}: rename them in "
            "the files, or write the images into folders of classes"
        )


def _class_names(schema: pa.Schema, path: Path) -> list[str] | None:
    """Names of the classes as `datasets` writes them, None where it did not."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError as error:
        raise ValueError(f"{path}: its metadata is not JSON ({error}); download it again") from error
    for key in ("info", "features", "label", "names"):
        found = found.get(key) if isinstance(found, dict) else None
    return [str(name) for name in found] if isinstance(found, list) and found else None


def _classes(labels: NDArray[np.int64], names: list[str] | None, where: Path) -> list[str]:
    """Names of the classes, which are their numbers where the files have none.

    Raises:
        ValueError: A label is out of range, or a class is empty.
    """
    found = np.unique(labels)
    low, high = int(found[0]), int(found[-1])
    num_classes = len(names) if names else high + 1
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise ValueError(f"{where}: a label is {wrong}, expected 0 to {num_classes - 1}; a test split has no labels")
    if len(found) < num_classes:  # told before there is a name for each: labels may be as large as 2^63
        empty = int(np.argmax(np.append(found, -1) != np.arange(len(found) + 1)))
        name = names[empty] if names else empty
        raise ValueError(f"{where}: class {empty} ({name}) has no images; every class needs at least one")
    return names or [str(label) for label in range(num_classes)]
