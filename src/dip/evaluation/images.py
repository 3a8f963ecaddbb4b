"""Images to evaluate: an npz in the ADM format, or a folder of image files.

Shapes: n = number of images, H/W = image.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dip.data.source import is_image
from dip.evaluation.features import ImageSet
from dip.evaluation.npz import load_images
from dip.files import sha256

JPEG_COST = "JPEG files: compression raised the FID of one and the same set of samples from 2.5 to 5.8"
_SUFFIXES = (".png", ".jpg", ".jpeg")
_THREADS = 4


class FolderImages:
    """The image files of a folder and of those in it, indexed like the array that they make up.

    They are in the order of their names, with numbers counted: 2.png before 10.png. The order matters to the
    Inception score. Hidden files do not count. Files are read when they are asked for.

    Args:
        folder: Where they lie.

    Raises:
        ValueError: No images, or the first one is not 8-bit RGB.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
        found = (name for name in names if name.lower().endswith(_SUFFIXES) and is_image(name))
        ordered = sorted(sorted(found), key=_natural)  # 1.png and 01.png by their text
        self.paths = [path for name in ordered if (path := folder / name).is_file()]
        if not self.paths:
            raise ValueError(f"{folder}: there are no images in it; expected PNG files, or give an npz with arr_0")
        self.shape = (len(self.paths), *_read(self.paths[0]).shape)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, chosen: slice) -> NDArray[np.uint8]:
        """Images of a slice, uint8 of shape (n, H, W, 3).

        Raises:
            ValueError: A file cannot be read, is not 8-bit RGB or has another size than the first; it is named.
        """
        paths = self.paths[chosen]
        with ThreadPoolExecutor(_THREADS) as pool:
            images = list(pool.map(_read, paths))
        for path, image in zip(paths, images, strict=True):
            if image.shape != self.shape[1:]:
                expected, found = ("x".join(map(str, shape[:2])) for shape in (self.shape[1:], image.shape))
                raise ValueError(f"{path}: it has {found} pixels, and {self.paths[0].name} has {expected}")
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)

    @functools.cached_property
    def num_jpeg(self) -> int:
        """How many of the files are JPEG, whatever their names end in."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(_is_jpeg, self.paths))

    @property
    def sha256(self) -> str:
        """One checksum of all names and contents."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.fsencode(path.relative_to(self.folder)) + f"\0{sha256(path)}\n".encode())
        return digest.hexdigest()


def open_images(path: str | Path) -> tuple[NDArray[np.uint8] | FolderImages, Callable[[], str]]:
    """Images of an npz or a folder, and what computes their checksum.

    Raises:
        FileNotFoundError: There is nothing at the path.
        ValueError: As for `load_images` and `FolderImages`; or the file is of another format.
    """
    path = Path(path)
    if path.is_dir():
        folder = FolderImages(path)
        return folder, lambda: folder.sha256
    if path.suffix.lower() in (*_SUFFIXES, ".npy"):
        raise ValueError(f"{path}: expected an npz with the images under arr_0, or a folder of PNG files")
    return load_images(path), lambda: sha256(path)


def source_deviations(images: ImageSet) -> list[str]:
    """What in the files of images keeps a result from being one of the full protocol, in words."""
    if isinstance(images, FolderImages) and images.num_jpeg:
        return [f"{images.num_jpeg} {JPEG_COST}"]
    return []


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            pixels = np.asarray(image)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: cannot be read as an image: it is no PNG file, whatever its name") from None
    except Exception as error:  # whatever a decoder says of damaged content
        raise ValueError(f"{path}: cannot be read as an image ({error})") from error
    if image.mode != "RGB":
        raise ValueError(f"{path}: its pixels are of mode {image.mode}; expected 8-bit RGB")
    if "transparency" in image.info:
        raise ValueError(f"{path}: one of its colours is transparent; expected 8-bit RGB")
    if image.format == "PNG" and (depth := _first_bytes(path, 25)[24]) != 8:
        raise ValueError(f"{path}: its pixels have {depth} bits a channel; expected 8-bit RGB")
    return pixels


def _is_jpeg(path: Path) -> bool:
    return _first_bytes(path, 3) == b"\xff\xd8\xff"


def _first_bytes(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _natural(name: str) -> list[Any]:
    """Text and numbers in turn, for sorting."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
