"""Class-conditional crops of the photographs that ship with scikit-image and scikit-learn.

The photograph is the class. A vertical strip in the middle of every photograph is held out: crops for training
come from its left and its right, crops for the reference from the strip, and no pixel is in both, so that
memorised training crops do not score.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dip.data.crop import box_reduce
from dip.data.packaged import copy_of, packaged

if TYPE_CHECKING:
    from dip.schema import Photographs

Pixels = NDArray[np.uint8]


def load_photograph(name: str) -> Pixels:
    """One photograph as uint8 RGB, shape (H, W, 3): the copy in data/photographs, or the package's own.

    Raises:
        ValueError: There is no such photograph, or its file is missing or unreadable.
    """
    path = copy_of(name)
    if not path.is_file():
        path = packaged(name)
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # of damaged content
        raise ValueError(
            f"photograph '{name}': {path} cannot be read ({error}); copy it again with `dip photograph {name}`"
        ) from error
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        raise ValueError(f"photograph '{name}': expected uint8 pixels, got {pixels.dtype} of shape {pixels.shape}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    return np.ascontiguousarray(np.broadcast_to(pixels[..., :3], (*pixels.shape[:2], 3)))


def training_crops(dataset: Photographs) -> tuple[Pixels, NDArray[np.int64]]:
    """Crops outside the held-out strips.

    Returns:
        images: uint8, shape (num_images, image_size, image_size, 3), classes interleaved.
        labels: int64, shape (num_images,).
    """
    return _crops(dataset, dataset.crops_per_class, dataset.seed, held_out=False)


def held_out_crops(dataset: Photographs, num_images: int, seed: int) -> tuple[Pixels, NDArray[np.int64]]:
    """Crops of the held-out strips: images and labels as in `training_crops`, `num_images` in all."""
    per_class = -(-num_images // dataset.num_classes)
    images, labels = _crops(dataset, per_class, seed, held_out=True)
    return images[:num_images], labels[:num_images]


def _crops(dataset: Photographs, per_class: int, seed: int, *, held_out: bool) -> tuple[Pixels, NDArray[np.int64]]:
    num_classes, size = dataset.num_classes, dataset.image_size
    images = np.empty((per_class, num_classes, size, size, 3), np.uint8)
    for label, name in enumerate(dataset.photographs):
        regions = list(_regions(name, dataset, held_out=held_out))
        # Every place for a crop is equally likely, in whichever region it lies.
        places = [(r.shape[0] - size + 1) * (r.shape[1] - size + 1) for r in regions]
        generator = np.random.default_rng((seed, int(held_out), label))
        chosen = generator.choice(len(regions), size=per_class, p=np.array(places) / sum(places))
        for index, which in enumerate(chosen):
            region = regions[which]
            top = generator.integers(region.shape[0] - size + 1)
            left = generator.integers(region.shape[1] - size + 1)
            images[index, label] = region[top : top + size, left : left + size]
    labels = np.tile(np.arange(num_classes, dtype=np.int64), per_class)
    return images.reshape(-1, size, size, 3), labels


def _regions(name: str, dataset: Photographs, *, held_out: bool) -> Iterator[Pixels]:
    pixels = box_reduce(load_photograph(name), dataset.box_filter)
    width, size = pixels.shape[1], dataset.image_size
    strip = max(round(dataset.held_out * width), size)
    left = (width - strip) // 2
    regions = [pixels[:, left : left + strip]] if held_out else [pixels[:, :left], pixels[:, left + strip :]]
    wide_enough = [region for region in regions if min(region.shape[:2]) >= size]
    if not wide_enough:
        raise ValueError(
            f"photograph '{name}' is {pixels.shape[1]} x {pixels.shape[0]} pixels after the box filter: too small for "
            f"crops of {size} with {dataset.held_out:.0%} held out; reduce image_size, box_filter or held_out"
        )
    yield from wide_enough
