"""Sample and reference files in the layout of the ADM evaluation suite.

A sample file holds `arr_0`, uint8 images. A reference file holds `arr_0` as well (for precision and recall) and the
statistics `mu`, `sigma` (of pooled features) and `mu_s`, `sigma_s` (of spatial features) of the whole data set.

Shapes: n = number of images, H/W = image, d = dimension of a feature.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from dip.evaluation.features import check_images
from dip.evaluation.frechet import Statistics
from dip.files import atomic_write
from dip.schema.base import Count, Schema

STATISTICS = ("mu", "sigma", "mu_s", "sigma_s")
_LARGEST = float(np.finfo(np.float32).max)  # of a covariance, since features and their squares are in float32
_AGAIN = "write or download it again"


@dataclass(frozen=True, eq=False)
class Blocks:
    """An array in pieces along its first axis, read one after the other, so that it is never held as a whole.

    Attributes:
        shape: Of the whole.
        dtype: Of all pieces.
        pieces: Arrays of shape (n_i, *shape[1:]), the n_i summing to shape[0]; read once.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[NDArray]


class Metadata(Schema):
    """What `write_reference` notes beside images and statistics; files of others have none of it."""

    model_config = ConfigDict(extra="ignore")

    name: str | None = None
    num_images: Annotated[Count, Field(ge=2)] | None = None  # behind the statistics
    feature_extractor: str | None = None
    extractor_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """What a reference file holds.

    Attributes:
        images: uint8, shape (n, H, W, 3).
        pool: Statistics of the pooled features, or None where the file has images only.
        spatial: Statistics of the spatial features, likewise.
        metadata: What `write_reference` noted.
    """

    images: NDArray[np.uint8]
    pool: Statistics | None
    spatial: Statistics | None
    metadata: Metadata = field(default_factory=Metadata)


def load_images(path: str | Path) -> NDArray[np.uint8]:
    """Images of an ADM-format npz, `arr_0`.

    An uncompressed file, as `np.savez` writes it, is memory-mapped: 50,000 images of 256 x 256 take no memory of
    their own. A compressed one is read as a whole.

    Returns:
        uint8, shape (n, H, W, 3), read-only.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not an npz, a truncated or damaged one (its checksums are verified), no `arr_0`, or something else
            than uint8 (n, H, W, 3) in it.
    """
    with _opened(path) as archive:
        if "arr_0.npy" not in archive.namelist():
            names = ", ".join(name.removesuffix(".npy") for name in archive.namelist()) or "nothing"
            raise ValueError(f"{path}: expected images under the key arr_0, found {names}")
        images = _read_array(archive, "arr_0", path)
    check_images(images, where=str(path))
    return images


def load_reference(path: str | Path) -> Reference:
    """Images and statistics of a reference file, of the ADM release or written by `write_npz`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: As for `load_images`; some of the four statistics are missing, do not fit together or cannot be
            those of features; or the metadata is not what `write_reference` notes.
    """
    images = load_images(path)
    with _opened(path) as archive:
        missing = [name for name in STATISTICS if f"{name}.npy" not in archive.namelist()]
        if len(missing) == len(STATISTICS):
            return Reference(images, None, None)
        if missing:
            raise ValueError(
                f"{path}: has some statistics but not {', '.join(missing)}: sFID needs mu_s and sigma_s; use a "
                "VIRTUAL_*.npz file of the ADM release, or write the reference again"
            )
        arrays = {name: _read_array(archive, name, path) for name in STATISTICS}
    for name, array in arrays.items():
        _check_statistic(name, array, path)
    try:
        metadata = Metadata.parse(json.dumps(load_metadata(path)))
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: its metadata is not that of a reference ({error}): write it again") from error
    mu, sigma, mu_s, sigma_s = arrays.values()
    try:
        pool = Statistics(mu, sigma, metadata.num_images)
        return Reference(images, pool, Statistics(mu_s, sigma_s, metadata.num_images), metadata)
    except ValueError as error:
        raise ValueError(f"{path}: its statistics cannot be used ({error}): {_AGAIN}") from error


def _check_statistic(name: str, array: NDArray, path: str | Path) -> None:
    """Refuse what is no mean or covariance of features, whatever its shape."""
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: {name} is an array of {array.dtype}, not of numbers: {_AGAIN}")
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {name} has NaN or infinity, the features behind it were not finite: {_AGAIN}")
    if (largest := float(np.abs(array).max(initial=0))) > _LARGEST:
        raise ValueError(f"{path}: {name} has numbers up to {largest:.1e}, too large for features: {_AGAIN}")
    if array.ndim == 2 and (np.diagonal(array) < 0).any():
        raise ValueError(f"{path}: {name} has variances below 0, it is no covariance: {_AGAIN}")


def load_metadata(path: str | Path) -> dict[str, Any]:
    """What `write_npz` was given as `metadata`, JSON in an array of one string; empty where there is none.

    Raises:
        FileNotFoundError, ValueError: As for `load_images`.
    """
    with _opened(path) as archive:
        if "metadata.npy" not in archive.namelist():
            return {}
        text = str(_read_array(archive, "metadata", path))
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its metadata is not JSON ({error}): write it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: its metadata is no JSON object but a {type(content).__name__}: write it again")
    return content


def write_npz(path: str | Path, arrays: Mapping[str, NDArray | Blocks]) -> None:
    """Write an uncompressed npz atomically, with the same bytes for the same arrays.

    Arrays are copied a few megabytes at a time, so memory-mapped ones are never held as a whole.

    Raises:
        ValueError: An array of Python objects, or pieces that do not make up their array.
        OSError: The file cannot be written; an earlier one is left as it was.
    """
    with atomic_write(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # A fixed date: np.savez notes the time, and the file's checksum would change with every writing.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                _write_array(member, array)


def _write_array(member: IO[bytes], array: NDArray | Blocks) -> None:
    if not isinstance(array, Blocks):
        array = np.asanyarray(array)
        array = Blocks(array.shape, array.dtype, [array])
    if array.dtype.hasobject:
        raise ValueError("arrays of Python objects cannot be written without pickle")
    descr = np.lib.format.dtype_to_descr(array.dtype)
    header = {"descr": descr, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(member, header)
    if array.shape == ():
        for piece in array.pieces:
            member.write(piece.tobytes())
        return
    written = 0
    for piece in array.pieces:
        if piece.shape[1:] != array.shape[1:] or piece.dtype != array.dtype:
            raise ValueError(f"a piece of {piece.dtype} {piece.shape} cannot be part of {array.dtype} {array.shape}")
        rows = max(1, 2**24 // max(1, piece[:1].nbytes))
        for start in range(0, len(piece), rows):
            member.write(np.ascontiguousarray(piece[start : start + rows]).tobytes())
        written += len(piece)
    if written != array.shape[0]:
        raise ValueError(f"the pieces have {written} rows, the array should have {array.shape[0]}")


def _opened(path: str | Path) -> zipfile.ZipFile:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # damaged bytes may ask for another version
        raise ValueError(
            f"{path}: not an npz file, or a truncated one ({error}): write or download it again"
        ) from error


def _read_array(archive: zipfile.ZipFile, name: str, path: str | Path) -> NDArray:
    """One array of an npz, memory-mapped if it is stored without compression; pickled objects are refused."""
    info = archive.getinfo(f"{name}.npy")
    try:
        with archive.open(info) as member:
            version = np.lib.format.read_magic(member)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read_header(member)
            header_size = member.tell()
        if dtype.hasobject:
            raise ValueError("it holds pickled objects, which are not opened")
        if info.compress_type == zipfile.ZIP_STORED and not fortran_order and len(shape) > 0 and 0 not in shape:
            if header_size + math.prod(shape) * dtype.itemsize != info.file_size:
                raise ValueError(f"it has {info.file_size} bytes, which are not those of {dtype} {shape}")
            with archive.open(info) as member:
                while member.read(2**20):  # to its end, where zipfile compares the checksum
                    pass
            offset = _data_offset(Path(path), info) + header_size
            return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
        with archive.open(info) as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            if member.read(1):  # at its end, zipfile compares the checksum
                raise ValueError(f"it has {info.file_size} bytes, which are more than those of {dtype} {shape}")
            return array
    except Exception as error:  # zipfile, its decompressors and NumPy's parser raise anything over damaged bytes
        raise ValueError(f"{path}: cannot read {name} ({error}): write or download it again") from error


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the content of an archive's member begins in the file, after its local header."""
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name_length = int.from_bytes(file.read(2), "little")
        extra_length = int.from_bytes(file.read(2), "little")
    return info.header_offset + 30 + name_length + extra_length
