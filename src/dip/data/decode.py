"""From the bytes of an image file to a square crop.

Pillow decodes; that is the reference for pixels here, as it is in ADM.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dip.data.crop import center_crop

# Larger files are skipped: the limits keep a worker below 0.9 GB, also for a progressive CMYK JPEG.
MAX_FILE_BYTES = 2**28
MAX_PIXELS = 2**26
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow knows more, and runs Ghostscript on one (EPS)
_EMPTY = "empty file, a pipe, or a link to a file that is gone"
LFS_POINTER = b"version https://git-lfs.github.com/"  # how such a file begins
LFS_HINT = "a pointer of Git LFS in the place of the file: run `git lfs pull` where it came from"


class UnreadableImageError(ValueError):
    """The file is not an image that can be used; the message says why, in the same words on every machine."""


def decode(content: bytes, image_size: int, *, upright: bool) -> NDArray[np.uint8]:
    """ADM's crop of an encoded image.

    Grey and CMYK become RGB, the format is told from the content (a PNG may be named .JPEG), transparency is
    dropped, and of an animation the first frame counts.

    Args:
        content: A whole image file.
        image_size: Side of the crop in pixels.
        upright: Turn the image by its EXIF orientation tag. ADM does not.

    Returns:
        uint8 array of shape (image_size, image_size, 3).

    Raises:
        UnreadableImageError: It cannot be decoded, is too large, too elongated, or has more than 8 bits per channel.
    """
    if len(content) > MAX_FILE_BYTES:
        raise UnreadableImageError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_size(image, image_size)
            if image.mode.startswith(("I", "F")):
                raise UnreadableImageError(f"pixels of mode {image.mode}, expected 8 bits per channel")
            image.load()
            if upright:
                image.getexif()
                image.info.clear()  # the tags just read, which Pillow would write anew without the orientation, or fail
                ImageOps.exif_transpose(image, in_place=True)
            return center_crop(image if image.mode == "RGB" else image.convert("RGB"), image_size)
    except (UnreadableImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(_what_it_is(content)) from None
    except Image.DecompressionBombError:  # Pillow's own limit, above ours
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # whatever a decoder says of damaged content
        raise UnreadableImageError(f"{type(error).__name__}: {error}") from error


def _what_it_is(content: bytes) -> str:
    if content.startswith(LFS_POINTER):
        return LFS_HINT
    return "not an image of a known format" if content else _EMPTY


def _check_size(image: Image.Image, image_size: int) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(f"{width} x {height} pixels, expected {MAX_PIXELS:,} at most")
    if max(width, height) / min(width, height) * image_size**2 > MAX_PIXELS:
        raise UnreadableImageError(f"{width} x {height} pixels: too elongated for a crop of {image_size}")
