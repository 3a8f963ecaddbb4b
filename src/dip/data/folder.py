"""Images in a folder: a folder for each class (`n01440764/*.JPEG`), or all in one without classes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dip.data.source import READ_BYTES, SUFFIXES, Listing, as_names, is_image

NO_CLASS = "images"  # name of the one class of a folder without classes
_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})
_KAGGLE = ("ILSVRC", "Data", "CLS-LOC", "train")  # where Kaggle's download of ImageNet has its classes


@dataclass(frozen=True)
class FolderPart:
    """Some files of a folder; see `dip.data.source.Part`."""

    folder: Path
    names: list[str]

    def describe(self) -> list[str]:
        return [f"{name}\t{_size(self.folder / name)}" for name in self.names]

    def read(self) -> Iterator[bytes]:
        for name in self.names:
            yield _content(self.folder / name)


@dataclass(frozen=True)
class FolderSource:
    """Image files by class, in sorted order; see `dip.data.source.Source`."""

    folder: Path
    listing: Listing
    layout: Literal["folder"] = "folder"

    @classmethod
    def open(cls, folder: Path) -> FolderSource:
        """List a folder.

        Raises:
            ValueError: There are no images, none in some class, or some beside the folders of classes; or the folders
                are those of splits, or lead to ImageNet's.
        """
        for start in range(len(_KAGGLE) - 1):
            if (classes_of_kaggle := folder.joinpath(*_KAGGLE[start:])).is_dir():
                raise ValueError(f"{folder}: Kaggle's download of ImageNet; give '{classes_of_kaggle}'")
        loose = sorted(entry.name for entry in os.scandir(folder) if is_image(entry.name) and not entry.is_dir())
        found = (entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir())
        classes = sorted(found)
        if "train" in classes and _SPLITS.issuperset(classes) and len(classes) > 1:
            raise ValueError(f"{folder}: its folders are splits ({', '.join(classes)}); give '{folder / 'train'}'")
        if loose and classes:
            raise ValueError(
                f"{folder}: {len(loose)} images ({loose[0]}, ...) lie beside {len(classes)} folders ({classes[0]}, "
                "...); move them into folders of classes, or the folders away"
            )
        if loose:
            by_class = [(NO_CLASS, as_names(loose, folder))]
        else:
            by_class = [(name, as_names(_images(folder, name), folder)) for name in classes]
        if not by_class:
            _check_types(folder)
        for name, images in by_class:
            if not len(images):
                _check_types(folder / name)
        return cls(folder, Listing.of(by_class, folder))

    @property
    def classes(self) -> list[str]:
        return self.listing.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.listing.labels

    def part(self, start: int, stop: int) -> FolderPart:
        return FolderPart(self.folder, self.listing.names[start:stop].tolist())


def _images(folder: Path, name: str) -> list[str]:
    """Images of a class and of the folders in it that are not hidden, relative to the source, sorted."""
    found = []
    for parent, folders, files in os.walk(folder / name, onerror=_raise):
        folders[:] = [inner for inner in folders if not inner.startswith(".")]
        relative = Path(parent).relative_to(folder).as_posix()
        found += [f"{relative}/{file}" for file in files if is_image(file)]
    return sorted(found)


def _check_types(folder: Path) -> None:
    """Name what there is in a folder without images: those of other formats, or archives.

    Raises:
        ValueError: There are files.
    """
    names = (entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith("."))
    if endings := sorted({suffix for name in names if (suffix := Path(name).suffix)}):
        raise ValueError(
            f"{folder}: no images, but files that end in {', '.join(endings[:5])}; images end in "
            f"{', '.join(sorted(SUFFIXES))}"
        )


def _size(path: Path) -> int:
    """Bytes of a file; what is none, a pipe or a link to a file that is gone, is skipped as an empty image."""
    try:
        status = path.stat()
    except OSError:
        if path.is_symlink() and not path.exists():
            return 0
        raise
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _content(path: Path) -> bytes:
    """A file's content, as far as it is read; likewise, as to read a pipe has no end."""
    if not _size(path):
        return b""
    with path.open("rb") as file:
        return file.read(READ_BYTES)


def _raise(error: OSError) -> None:
    raise error
