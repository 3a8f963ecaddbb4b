"""ILSVRC2012_img_train.tar: a tar of one tar for each class, read in place.

Nothing is unpacked: the listing notes where in the file each image begins, and workers read from there.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from dip.data.source import READ_BYTES, Listing, Names, as_names, is_image
from dip.progress import Progress

Places = NDArray[np.int64]  # shape (n, 2): offset in the file and size, in bytes


@dataclass(frozen=True)
class TarPart:
    """Some images of a tar; see `dip.data.source.Part`."""

    path: Path
    names: list[str]
    places: Places

    def describe(self) -> list[str]:
        return [f"{name}\t{size}" for name, (_, size) in zip(self.names, self.places.tolist(), strict=True)]

    def read(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for offset, size in self.places.tolist():
                content = os.pread(file.fileno(), min(size, READ_BYTES), offset)
                if len(content) != min(size, READ_BYTES):
                    raise ValueError(f"{self.path}: ends at an image; it has changed, run the preparation again")
                yield content


@dataclass(frozen=True)
class TarSource:
    """Images of a tar of tars by class, in sorted order; see `dip.data.source.Source`."""

    path: Path
    listing: Listing
    places: Places
    layout: Literal["tar"] = "tar"

    @classmethod
    def open(cls, path: Path) -> TarSource:
        """List a tar of tars.

        Raises:
            ValueError: It is no tar, compressed, damaged or incomplete; it has a path that leads out of it, a link,
                or a name twice; or a class has no images.
        """
        try:
            with path.open("rb") as file:
                by_class = _list(file, path)
        except tarfile.TarError as error:
            raise ValueError(
                f"{path}: not a complete, uncompressed tar ({error}); expected ILSVRC2012_img_train.tar: compare its "
                "size with that of the download"
            ) from error
        classes = sorted(by_class)
        listing = Listing.of([(name, by_class[name][0]) for name in classes], path)
        return cls(path, listing, np.concatenate([by_class[name][1] for name in classes]))

    @property
    def classes(self) -> list[str]:
        return self.listing.classes

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.listing.labels

    def part(self, start: int, stop: int) -> TarPart:
        return TarPart(self.path, self.listing.names[start:stop].tolist(), self.places[start:stop])


def _list(file: BinaryIO, path: Path) -> dict[str, tuple[Names, Places]]:
    """Names and places of the images of every class."""
    by_class: dict[str, tuple[Names, Places]] = {}
    with (
        tarfile.open(fileobj=file, mode="r:") as outer,
        Progress("list", total=path.stat().st_size >> 20, unit="MiB") as progress,
    ):
        listed = 0
        for member in outer:
            _check(member, path)
            inner = PurePosixPath(member.name)
            if member.isdir() or inner.name.startswith("."):  # `._n01440764.tar`, which a Mac packs beside a file
                continue
            if inner.suffix != ".tar":
                raise ValueError(f"{path}: '{member.name}' is not a tar; expected one tar for each class")
            if inner.stem in by_class:
                raise ValueError(f"{path}: the class '{inner.stem}' is there twice")
            by_class[inner.stem] = _list_class(file, member, inner.stem, path)
            end = (member.offset_data + member.size) >> 20
            progress.advance(end - listed)
            listed = end
    return by_class


def _list_class(file: BinaryIO, outer: tarfile.TarInfo, name: str, path: Path) -> tuple[Names, Places]:
    """Names and places of one class, sorted by name."""
    end = outer.offset_data + outer.size
    file.seek(outer.offset_data)
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=file, mode="r:") as inner:
        for member in inner:
            if member.offset_data + member.size > end:
                raise ValueError(f"{path}: '{outer.name}' is cut off at '{member.name}'")
            _check(member, path)
            if member.isdir() or not is_image(member.name):
                continue
            image = f"{name}/{PurePosixPath(member.name)}"
            if image in places:
                raise ValueError(f"{path}: '{image}' is there twice")
            places[image] = (member.offset_data, member.size)
    names = sorted(places)
    return as_names(names, path), np.array([places[image] for image in names], np.int64).reshape(-1, 2)


def _check(member: tarfile.TarInfo, path: Path) -> None:
    """Nothing is written to the names of members, but a tar that has such names is not what it should be."""
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"{path}: the path '{member.name}' leads out of the archive; it is not used")
    if not (member.isfile() or member.isdir()):
        raise ValueError(f"{path}: '{member.name}' is a link or a device, expected files and folders alone")
