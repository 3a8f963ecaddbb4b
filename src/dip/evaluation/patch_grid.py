"""What the patches of a model leave in its samples: seams between them, and a pattern that repeats in all of them.

n = number of images, H/W = image, P = side of a patch, N = patches of an image.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

from dip.evaluation.features import ImageSet

MOST_IMAGES = 10_000  # more of a set change the third digit
_BATCH_SIZE = 64


@dataclass
class _Energies:
    """Sums over images of mean squared grey values.

    Attributes:
        across: Of the difference of two neighbouring pixels on either side of a border between patches.
        inside: Of the difference of two neighbouring pixels of one patch.
        repeated: Of what an image's patches have in common, their mean without its own mean. By Parseval's theorem this
            is the image's spectral energy at all multiples of 1 / P cycles per pixel but 0.
        within: Of what differs within patches.
    """

    across: float = 0.0
    inside: float = 0.0
    repeated: float = 0.0
    within: float = 0.0


def patch_grid(samples: ImageSet, reference: ImageSet, patch_size: int) -> dict[str, float | int] | None:
    """Energy of samples at the grid of the patches, relative to that of real images.

    Args:
        samples: uint8, shape (n, H, W, 3).
        reference: uint8, shape (m, H, W, 3); nothing in them knows of the grid.
        patch_size: P, which divides H and W. Of each set at most `MOST_IMAGES` are taken, evenly spread.

    Returns:
        `patch_size`, and two ratios that are 1 for samples without a grid. `seams`: the energy of steps across borders
        of patches over that of steps inside, in the samples over the same in the reference. It is above 1 where patches
        do not join, whatever their contents, and below where they are smoothed together. `period`: the share of the
        energy within patches that all patches of an image have in common, the same way. It is above 1 where one
        pattern, lines or a checkerboard, lies over all patches. None where images have no grid (one patch, or patches
        of one pixel) or no detail.
    """
    if patch_size < 2 or patch_size >= min(samples.shape[1:3]):
        return None
    ours, theirs = (_energies(images, patch_size) for images in (samples, reference))
    if not all((ours.inside, ours.within, *astuple(theirs))):
        return None
    return {
        "patch_size": patch_size,
        "seams": (ours.across / ours.inside) / (theirs.across / theirs.inside),
        "period": (ours.repeated / ours.within) / (theirs.repeated / theirs.within),
    }


def _energies(images: ImageSet, patch_size: int) -> _Energies:
    total, every = _Energies(), -(-len(images) // MOST_IMAGES)
    for start in range(0, len(images), every * _BATCH_SIZE):
        _add(total, images[start : start + every * _BATCH_SIZE : every], patch_size)
    return total


def _add(total: _Energies, images: NDArray[np.uint8], size: int) -> None:
    """Add a batch of images, shape (n, H, W, 3)."""
    n, height, width, _ = images.shape
    values = images.astype(np.float32) - np.float32(127.5)
    patches = values.reshape(n, height // size, size, width // size, size, 3)  # (n, H/P, P, W/P, P, 3)
    first, last = slice(size, None, size), slice(size - 1, -1, size)  # rows or columns after and before a border
    total.across += n * _energy(values[:, first] - values[:, last])
    total.across += n * _energy(values[:, :, first] - values[:, :, last])
    total.inside += n * (_energy(np.diff(patches, axis=2)) + _energy(np.diff(patches, axis=4)))
    repeated = patches.mean(axis=(1, 3))  # (n, P, P, 3)
    total.repeated += n * _energy(repeated - repeated.mean(axis=(1, 2), keepdims=True))
    total.within += n * (_energy(patches) - _energy(patches.mean(axis=2).mean(axis=3)))


def _energy(values: NDArray[np.float32]) -> float:
    """Mean square, in one pass: in float32 of a row at most, where the sum of all loses the third digit."""
    rows = values.reshape(*values.shape[:2], -1)
    return float(np.vecdot(rows, rows).sum(dtype=np.float64)) / values.size
