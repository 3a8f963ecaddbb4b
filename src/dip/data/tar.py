"""ILSVRC2012_img_train.tar: a tar of one tar for each class, read in place.

Nothing is unpacked: the listing notes where in the file each image begins, and workers read from there.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from dip.data.source import EXPECTED, READ_BYTES, Listing, Names, as_names, is_image
from dip.progress import Progress

_HEADER_BYTES = 1 << 20  # more than any header takes, with long names and PAX records
_PADDING_BYTES = 1 << 20  # zeros behind the end, up to a whole record of 10,240 bytes as a rule

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
        with path.open("rb") as file:
            by_class = _list(file, path)
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
    size = path.stat().st_size
    with Progress("list", total=size >> 20, unit="MiB") as progress:
        listed = 0
        for member in _members(file, path, 0, size):
            inner = PurePosixPath(member.name)
            if member.isdir() or inner.name.startswith("."):  # `._n01440764.tar`, which a Mac packs beside a file
                continue
            if inner.suffix != ".tar":
                raise ValueError(
                    f"{path}: '{member.name}' is not a tar; expected one tar for each class. Unpack other archives "
                    "into folders of classes"
                )
            if inner.stem in by_class:
                raise ValueError(f"{path}: the class '{inner.stem}' is there twice")
            by_class[inner.stem] = _list_class(file, member, inner.stem, path)
            end = (member.offset_data + member.size) >> 20
            progress.advance(end - listed)
            listed = end
    return by_class


def _list_class(file: BinaryIO, outer: tarfile.TarInfo, name: str, path: Path) -> tuple[Names, Places]:
    """Names and places of one class, sorted by name."""
    places: dict[str, tuple[int, int]] = {}
    for member in _members(file, path, outer.offset_data, outer.offset_data + outer.size, outer.name):
        if member.isdir() or not is_image(member.name):
            continue
        image = f"{name}/{PurePosixPath(member.name)}"
        if image in places:
            raise ValueError(f"{path}: '{image}' is there twice")
        places[image] = (member.offset_data, member.size)
    names = sorted(places)
    return as_names(names, path), np.array([places[image] for image in names], np.int64).reshape(-1, 2)


def _members(file: BinaryIO, path: Path, start: int, end: int, inner: str = "") -> Iterator[tarfile.TarInfo]:
    """All members of the tar at bytes start to end - 1 of the file; `inner` is its name if it is one in another.

    Raises:
        ValueError: It is cut off or damaged, told with the place; or has a member that is not used, see `_check`.
    """
    bytes_of_tar = _Bytes(file, start, end)
    archive, last, place = None, "", start
    while True:
        try:
            bytes_of_tar.left = _HEADER_BYTES
            archive = archive or tarfile.open(fileobj=cast(BinaryIO, bytes_of_tar), mode="r:")  # noqa: SIM115 - not closed
            place = archive.offset
            member = archive.next()
            if member is None:
                bytes_of_tar.check_end(archive.offset)
                return
        except Exception as error:  # tarfile raises anything over damaged bytes
            where = f"at byte {place:,}" + (f", in '{inner}'" if inner else "") + (f", after '{last}'" if last else "")
            then = (
                "compare its size and checksum with those of the download" if inner or last else f"expected {EXPECTED}"
            )
            raise ValueError(f"{path}: not a complete, uncompressed tar ({error}, {where}); {then}") from error
        _check(member, path)
        if not 0 <= member.size <= end - member.offset_data:
            cut = f"'{inner}' is cut off" if inner else "it is cut off"
            raise ValueError(f"{path}: {cut} at '{member.name}', or that has a wrong size ({member.size:,} bytes)")
        last = member.name
        yield member


@dataclass
class _Bytes:
    """The bytes of one tar in a file, whose headers are read; a forged one can ask neither for others nor for many.

    Attributes:
        file: The file.
        start: Where the tar begins in it.
        end: Where it ends.
        left: How many bytes may still be read of this member's header. Python reads a long one in pieces.
    """

    file: BinaryIO
    start: int
    end: int
    left: int = 0

    def __post_init__(self) -> None:
        self.file.seek(self.start)

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, position: int) -> None:
        if not self.start - 1 <= position <= self.end:  # tarfile looks at the byte before a header
            raise tarfile.ReadError("a member's size leads out of it")
        self.file.seek(position)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"a header of more than {_HEADER_BYTES:,} bytes")
        self.left -= size
        return self.file.read(min(size, self.end - self.file.tell()))

    def check_end(self, position: int) -> None:
        """Refuse an end without the zeros that mark it: to tarfile, a damaged header is an end as well."""
        self.seek(position)
        if not (block := self.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError("no mark of its end")
        if len(block) < tarfile.BLOCKSIZE or any(block):
            raise tarfile.ReadError("a damaged header")
        rest = self.end - self.tell()
        if rest > _PADDING_BYTES or any(self.file.read(rest)):
            raise tarfile.ReadError(f"{rest:,} bytes after its end")


def _check(member: tarfile.TarInfo, path: Path) -> None:
    """Nothing is written to the names of members, but a tar that has such names is not what it should be."""
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError(f"{path}: the path '{member.name}' leads out of the archive; it is not used")
    if not (member.isfile() or member.isdir()) or member.issparse():
        raise ValueError(f"{path}: '{member.name}' is a link, a device or sparse; expected whole files and folders")
