"""Crops and resizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def center_crop(image: Image.Image, image_size: int) -> NDArray[np.uint8]:
    """ADM's crop: halve with a box filter while possible, resize bicubically, cut the centre.

    Args:
        image: RGB image of any size.
        image_size: Side of the crop in pixels.

    Returns:
        uint8 array of shape (image_size, image_size, 3).

    Source: guided-diffusion, `center_crop_arr`.
    """
    # ASSUMPTION: the paper has "center-cropped and resized"; its evaluation is ADM's, whose references are cropped so.
    while min(image.size) >= 2 * image_size:
        image = _resize(image, image.width // 2, image.height // 2, Image.Resampling.BOX)
    scale = image_size / min(image.size)
    image = _resize(image, round(image.width * scale), round(image.height * scale), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    top = (pixels.shape[0] - image_size) // 2
    left = (pixels.shape[1] - image_size) // 2
    return pixels[top : top + image_size, left : left + image_size]


def _resize(image: Image.Image, width: int, height: int, filter: Image.Resampling) -> Image.Image:
    """Columns, then rows, each rounded to 8 bits.

    That is what one call of Pillow did when ADM's data were made, and until version 12. Since 13 it turns the order
    round for some tall images, which changes pixels.
    """
    return image.resize((width, image.height), filter).resize((width, height), filter)


def box_reduce(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Mean of every block of factor x factor pixels, rounded; what is left over at the edges is dropped.

    Args:
        pixels: uint8 array of shape (H, W, C).
        factor: Side of a block; 1 changes nothing.

    Returns:
        uint8 array of shape (H // factor, W // factor, C).
    """
    if factor == 1:
        return pixels
    height, width = (side // factor for side in pixels.shape[:2])
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
    return np.round(blocks.mean(axis=(1, 3))).astype(np.uint8)
