"""Crops and resizes, against ADM's own algorithm and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dip.data.crop import box_reduce, center_crop


def adm_center_crop(pil_image: Image.Image, image_size: int) -> np.ndarray:
    """As guided-diffusion (openai/guided-diffusion, image_datasets.py) describes it, written anew."""
    width, height = pil_image.size
    while min(width, height) >= 2 * image_size:
        width, height = width // 2, height // 2
        pil_image = pil_image.resize((width, height), resample=Image.BOX)
    factor = image_size / min(width, height)
    pixels = np.array(pil_image.resize((round(width * factor), round(height * factor)), resample=Image.BICUBIC))
    y, x = ((side - image_size) // 2 for side in pixels.shape[:2])
    return pixels[y:, x:][:image_size, :image_size]


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (33, 47), (129, 65), (31, 200), (200, 31), (9, 12), (500, 375)])
def test_center_crop_is_adm_s(size: tuple[int, int]) -> None:
    """Wrong: FID against ADM's reference would be biased by the preparation."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    crop = center_crop(Image.fromarray(pixels), 16)
    assert crop.shape == (16, 16, 3) and crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, adm_center_crop(Image.fromarray(pixels), 16))


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
