"""Images in a folder: a folder for each class (`n01440764/*.JPEG`), or all in one without classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dip.data.source import READ_BYTES, Listing, as_names, is_image

NO_CLASS = "images"  # name of the one class of a folder without classes


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
            ValueError: There are no images, none in some class, or some beside the folders of classes.
        """
        loose = sorted(entry.name for entry in os.scandir(folder) if is_image(entry.name) and not entry.is_dir())
        found = (entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_dir())
        classes = sorted(found)
        if loose and classes:
            raise ValueError(
                f"{folder}: {len(loose)} images ({loose[0]}, ...) lie beside {len(classes)} folders ({classes[0]}, "
                "...); move them into folders of classes, or the folders away"
            )
        if loose:
            by_class = [(NO_CLASS, as_names(loose, folder))]
        else:
            by_class = [(name, as_names(_images(folder, name), folder)) for name in classes]
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


def _size(path: Path) -> int:
    """Bytes of a file; a link to one that is gone is an empty file, which is skipped as an image."""
    try:
        return path.stat().st_size
    except OSError:
        if _leads_nowhere(path):
            return 0
        raise


def _content(path: Path) -> bytes:
    """A file's content, as far as it is read; likewise."""
    try:
        with path.open("rb") as file:
            return file.read(READ_BYTES)
    except OSError:
        if _leads_nowhere(path):
            return b""
        raise


def _leads_nowhere(path: Path) -> bool:
    """Whether a file is a link to one that is gone."""
    return path.is_symlink() and not path.exists()


def _raise(error: OSError) -> None:
    raise error
