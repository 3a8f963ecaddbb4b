"""Crops and resizes: against guided-diffusion's own results, against a crop written anew, and plain loops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from dip.data.crop import box_reduce, center_crop

Pixels = np.ndarray

# SHA-256 (first 16 digits) of what guided-diffusion's `center_crop_arr` with Pillow 12 makes of
# `noise(width, height)`, by width, height and image_size.
ADM = {
    (16, 16, 16): "23e216a531ab7bdc",
    (17, 16, 16): "26b041d5965a7858",
    (31, 33, 16): "e0dd9c62ffe780c0",
    (32, 32, 16): "a4d186245beef13d",
    (33, 47, 16): "e442f921897b7876",
    (63, 64, 16): "7da332b4ff37c38b",
    (129, 65, 16): "ebb49308ae081992",
    (500, 375, 16): "a7fb77387a125944",
    (9, 12, 16): "d009d756887e4925",
    (1, 1, 16): "15b22b6b42ab40b9",
    (3, 200, 16): "66fd0872b71806c3",
    (31, 200, 16): "ab2e2b4a3c1220f6",
    (200, 31, 16): "43ba58470fd4293e",
    (1000, 33, 16): "854d35b4b970a817",
    (2, 999, 16): "f3fef2d4b0753c66",
    (333, 500, 64): "dccaeed37d66eac4",
    (127, 129, 64): "1e28af921a5d50ae",
    (151, 113, 37): "1190c25ca080ae43",
}


def noise(width: int, height: int) -> Pixels:
    """Pixels of which every one matters, the same in every version of NumPy."""
    counter = np.arange(height * width * 3, dtype=np.uint64).reshape(height, width, 3) + np.uint64(width)
    return ((counter * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56)).astype(np.uint8)


def box(x: Pixels) -> Pixels:
    return ((x > -0.5) & (x <= 0.5)).astype(float)


def bicubic(x: Pixels) -> Pixels:
    x, a = np.abs(x), -0.5
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resampled(rows: Pixels, size: int, kernel: Callable[[Pixels], Pixels], support: float) -> Pixels:
    """The first axis resized as image libraries do with 8 bits: weights of 22 bits, then rounding."""
    if len(rows) == size:
        return rows
    step = len(rows) / size
    stretch = max(step, 1.0)
    resized = np.empty((size, *rows.shape[1:]), np.uint8)
    for place in range(size):
        centre = (place + 0.5) * step
        first = max(0, int(centre - support * stretch + 0.5))
        last = min(len(rows), int(centre + support * stretch + 0.5))
        weights = kernel((np.arange(first, last) - centre + 0.5) * (1 / stretch))
        weights = weights * (1 / sum(weights.tolist())) * 2**22
        weights = np.trunc(weights + np.where(weights < 0, -0.5, 0.5)).astype(np.int64)
        total = np.tensordot(weights, rows[first:last].astype(np.int64), 1) + 2**21
        resized[place] = np.clip(total >> 22, 0, 255)
    return resized


def resized(pixels: Pixels, width: int, height: int, kernel: Callable[[Pixels], Pixels], support: float) -> Pixels:
    """Columns, then rows."""
    across = resampled(pixels.swapaxes(0, 1), width, kernel, support).swapaxes(0, 1)
    return resampled(across, height, kernel, support)


def written_anew(pixels: Pixels, image_size: int) -> Pixels:
    """ADM's crop without Pillow."""
    height, width = pixels.shape[:2]
    while min(width, height) >= 2 * image_size:
        width, height = width // 2, height // 2
        pixels = resized(pixels, width, height, box, 0.5)
    scale = image_size / min(width, height)
    width, height = round(width * scale), round(height * scale)
    pixels = resized(pixels, width, height, bicubic, 2.0)
    y, x = (height - image_size) // 2, (width - image_size) // 2
    return pixels[y : y + image_size, x : x + image_size]


@pytest.mark.parametrize(("width", "height", "image_size"), ADM)
def test_center_crop_is_adm_s(width: int, height: int, image_size: int) -> None:
    """Wrong: FID against ADM's reference would be biased by the preparation."""
    pixels = noise(width, height)
    crop = center_crop(Image.fromarray(pixels), image_size)
    assert crop.shape == (image_size, image_size, 3) and crop.dtype == np.uint8
    assert hashlib.sha256(crop.tobytes()).hexdigest()[:16] == ADM[width, height, image_size]
    np.testing.assert_array_equal(crop, written_anew(pixels, image_size))


def test_image_of_the_right_size_is_unchanged() -> None:
    """Wrong: images would be blurred for nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    np.testing.assert_array_equal(center_crop(Image.fromarray(pixels), 16), pixels)


def test_box_reduce_is_the_mean_of_blocks() -> None:
    """Wrong: rows and columns would be mixed, or sums would overflow 8 bits."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 11, 3), np.uint8)
    reduced = box_reduce(pixels, 3)
    assert reduced.shape == (2, 3, 3) and reduced.dtype == np.uint8
    for y in range(2):
        for x in range(3):
            block = pixels[3 * y : 3 * y + 3, 3 * x : 3 * x + 3].astype(float)
            np.testing.assert_array_equal(reduced[y, x], np.round(block.mean(axis=(0, 1))))
    np.testing.assert_array_equal(box_reduce(pixels, 1), pixels)
