"""Where a dataset's images come from: image folders, ImageNet's tar of tars, or Parquet files; told by what is there.

A source lists its images once, in their final order. A part of it, the images of one shard, is small enough to
hand to another process, which reads the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dip.data.decode import MAX_FILE_BYTES
from dip.paths import given_path
from dip.schema import ImageFiles

# What counts as an image in a folder or a tar; the format itself is told from the content.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
READ_BYTES = MAX_FILE_BYTES + 1  # as much of a file as is read; one byte more than is accepted
EXPECTED = (
    "a folder of class folders (n01440764/*.JPEG, ...), ILSVRC2012_img_train.tar, or Parquet files or their folder"
)


class Part(Protocol):
    """Some consecutive images of a source."""

    @property
    def names(self) -> list[str]:
        """Name of every image in the source."""

    def describe(self) -> list[str]:
        """A line per image; an image that was replaced by another has another line."""

    def read(self) -> Iterator[bytes]:
        """The files' contents, in order.

        Raises:
            OSError: A file is gone or cannot be read.
            ValueError: The source has changed since it was listed.
        """


class Source(Protocol):
    """All images of a dataset in their final order: by class, except where the source mixes the classes."""

    @property
    def layout(self) -> str:
        """folder, tar or parquet."""

    @property
    def classes(self) -> list[str]:
        """Name of every class; its position is the label."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """Label of every image, shape (N,)."""

    def part(self, start: int, stop: int) -> Part:
        """Images start to stop - 1."""


Names = NDArray[np.str_]  # of NumPy's variable-width strings: 14 million names are 0.7 GB, not 1.5


@dataclass(frozen=True)
class Listing:
    """Names and labels of all images, by class.

    Attributes:
        classes: Name of every class.
        labels: Shape (N,).
        names: Shape (N,), variable-width strings.
    """

    classes: list[str]
    labels: NDArray[np.int64]
    names: Names

    @classmethod
    def of(cls, by_class: Sequence[tuple[str, Names]], where: Path) -> Listing:
        """Names of images per class.

        Raises:
            ValueError: There are no images, or none in some class.
        """
        if not by_class:
            raise ValueError(f"{where}: no images; expected {EXPECTED}")
        for name, images in by_class:
            if not len(images):
                raise ValueError(f"{where / name}: no images; every class needs at least one")
        counts = [len(images) for _, images in by_class]
        return cls(
            classes=[name for name, _ in by_class],
            labels=np.repeat(np.arange(len(counts)), counts),
            names=np.concatenate([images for _, images in by_class]),
        )


def as_names(names: Sequence[str], where: Path) -> Names:
    """Names as an array.

    Raises:
        ValueError: One of them is not UTF-8.
    """
    try:
        return np.array(names, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: the name {error.object!r} is not UTF-8; rename it") from None


def is_image(name: str) -> bool:
    """Whether a file's name is that of an image.

    Hidden files (`._x.JPEG` of a Mac) are not, nor those in hidden folders (`.ipynb_checkpoints/x.JPEG`).

    Args:
        name: Path of the file within the source, or its last part.
    """
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def open_source(name: str, dataset: ImageFiles) -> Source:
    """List a dataset's images.

    Args:
        name: Name of the dataset in params.yaml, for messages.
        dataset: Its settings.

    Raises:
        ValueError: The source is not set, not there, damaged or of no known layout; or its numbers of classes and
            images are not those of params.yaml.
    """
    key = f"datasets.{name}.source"
    if dataset.source is None:
        raise ValueError(f"params.yaml: {key} is not set; give it {EXPECTED}")
    path = given_path(dataset.source, key, EXPECTED)
    if not (path.is_dir() or path.is_file()):
        raise ValueError(f"params.yaml: {key}: there is nothing at '{path}'; give it {EXPECTED}")
    source: Source
    if files := parquet_files(path, key):
        from dip.data.parquet import ParquetSource

        source = ParquetSource.open(files)
    elif not path.is_dir():
        from dip.data.tar import TarSource

        source = TarSource.open(path)
    else:
        from dip.data.folder import FolderSource

        source = FolderSource.open(path)
    _check_counts(name, dataset, source)
    return source


def parquet_files(source: Path, key: str) -> list[Path]:
    """The Parquet files of a source, in order; none where it is something else. Hidden ones do not count.

    Of files named by split, or in folders named so, those of the training split. They lie in the folder itself or in
    its data/ (as they are uploaded), or deeper (`default/train/0000.parquet`: as the hub converts them).

    Args:
        source: A folder, or one Parquet file.
        key: Where params.yaml gives it, for the message.

    Raises:
        ValueError: There are several configurations, or several splits and none of them is for training.
    """
    if not source.is_dir():
        return [source] if source.suffix == ".parquet" else []
    found = sorted([*source.glob("[!.]*.parquet"), *source.glob("data/[!.]*.parquet")])
    if not found:
        found = _nested_parquet_files(source)
        folders = sorted({path.parent for path in found})
        training = [folder for folder in folders if folder.name == "train" or any(folder.glob("train*.parquet"))]
        if len(chosen := training or folders) > 1:
            names = ", ".join(f"'{folder}'" for folder in chosen[:4]) + (", ..." if chosen[4:] else "")
            raise ValueError(f"params.yaml: {key}: Parquet files lie in {len(chosen)} folders; give it one of {names}")
        found = [path for path in found if path.parent in chosen]
    splits = {match[1] for path in found if (match := re.match(r"(.+)-\d+-of-\d+", path.name))}
    if training_split := [path for path in found if path.name.startswith("train")]:
        return training_split
    if len(splits) > 1:
        raise ValueError(
            f"{found[0].parent}: Parquet files of {' and '.join(sorted(splits))}, none of train; download those, or "
            "move the files of one split to a folder of their own"
        )
    return found


def _nested_parquet_files(folder: Path) -> list[Path]:
    """Parquet files anywhere in a folder, sorted; none where there are images, which are found first as a rule."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [inner for inner in folders if not inner.startswith(".")]
        if any(map(is_image, files)):
            return []
        found += [Path(parent, name) for name in files if name.endswith(".parquet") and not name.startswith(".")]
    return sorted(found)


def _check_counts(name: str, dataset: ImageFiles, source: Source) -> None:
    """Refuse other counts than those of params.yaml; images that cannot be read may explain some that are missing."""
    num_classes, num_images = len(source.classes), len(source.labels)
    key = f"params.yaml: datasets.{name}"
    if num_classes != dataset.num_classes:
        raise ValueError(
            f"{key}.num_classes is {dataset.num_classes}, and its source has {num_classes} classes and {num_images} "
            f"images: an incomplete copy? If not, write num_classes: {num_classes} and num_images: {num_images}"
        )
    if not num_images * (1 - dataset.max_skipped) <= dataset.num_images <= num_images:
        raise ValueError(
            f"{key}.num_images is {dataset.num_images}, and its source has {num_images} images: an incomplete copy? "
            f"If not, write num_images: {num_images}"
        )
