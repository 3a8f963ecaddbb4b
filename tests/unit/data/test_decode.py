"""Decoding: every kind of file that occurs in ImageNet, and what no decoder should be given."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from image_files import TURNED, encoded, picture
from PIL import Image

from dip.data import decode as module
from dip.data.crop import center_crop
from dip.data.decode import UnreadableImageError, decode


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG of a kind that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def as_adm(content: bytes, image_size: int) -> np.ndarray:
    """What ADM reads: open, convert to RGB, crop."""
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
        return center_crop(image.convert("RGB"), image_size)


KINDS = {
    "rgb": encoded(picture()),
    "grey": encoded(picture().convert("L")),
    "cmyk": encoded(picture().convert("CMYK")),
    "progressive": encoded(picture(), progressive=True),
    "turned": encoded(picture(), exif=TURNED),
    "png": encoded(picture(), "PNG"),
    "palette": encoded(picture().convert("P"), "PNG"),
    "alpha": encoded(picture().convert("RGBA"), "PNG"),
    "gif": encoded(picture(), "GIF"),
    "animated gif": encoded(picture(), "GIF", save_all=True, append_images=[picture(seed=1)]),
    "animated webp": encoded(picture(), "WEBP", save_all=True, append_images=[picture(seed=1)]),
    "animated png": encoded(picture(), "PNG", save_all=True, append_images=[picture(seed=1)]),
    "several pictures": encoded(picture(), "MPO", save_all=True, append_images=[picture(seed=1)]),  # of a telephone
    "palette with transparency": encoded(picture().convert("P"), "PNG", transparency=bytes(range(256))),
    "colours of 16 bits": png(9, 8, 16, 2, (b"\0" + bytes(range(54))) * 8),
    "two bits": png(12, 8, 2, 0, (b"\0" + bytes(range(3))) * 8),
    "cmyk tiff": encoded(picture().convert("CMYK"), "TIFF"),
    "bmp": encoded(picture(), "BMP"),
    "one pixel": encoded(picture(1, 1), "PNG"),
    "exact": encoded(picture(8, 8), "PNG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_images_are_read_as_adm_does(kind: str) -> None:
    """Wrong: an image of ImageNet would be refused, or have other pixels than in ADM's reference."""
    pixels = decode(KINDS[kind], 8, upright=False)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, as_adm(KINDS[kind], 8))


def test_orientation_tag_counts_where_it_should() -> None:
    """Wrong: photographs of a telephone would lie on their side, or ImageNet's would differ from ADM's."""
    turned = encoded(picture(8, 8), "PNG", exif=TURNED)
    ignored, upright = decode(turned, 8, upright=False), decode(turned, 8, upright=True)
    np.testing.assert_array_equal(upright, np.rot90(ignored, -1))
    grey = encoded(picture(8, 8).convert("L"), "PNG", exif=TURNED)
    np.testing.assert_array_equal(decode(grey, 8, upright=True), np.rot90(decode(grey, 8, upright=False), -1))
    assert np.array_equal(decode(KINDS["rgb"], 8, upright=True), decode(KINDS["rgb"], 8, upright=False))


def test_orientation_counts_beside_tags_that_are_wrong() -> None:
    """Wrong: a good photograph would be skipped for a tag that Pillow can read and cannot write."""
    turn, resolution = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHI4s", 0x011A, 2, 3, b"72")  # as text
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + turn + resolution + bytes(4)
    with_tags = encoded(picture(8, 8), "PNG", exif=exif)
    np.testing.assert_array_equal(decode(with_tags, 8, upright=True), np.asarray(picture(8, 8).rotate(-90)))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"not an image", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a known format"),  # runs Ghostscript
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            "a pointer of Git LFS .* `git lfs pull`",
        ),
        (png(30_000, 30_000, 8, 0, b""), "more than 67,108,864 pixels"),
        (png(2**31 - 1, 2**31 - 1, 8, 0, b""), "more than 67,108,864 pixels"),
        (KINDS["rgb"][:-200], r"OSError: image file is truncated"),
        (KINDS["png"][:-200], r"OSError: "),
        (KINDS["rgb"][:10], "OSError: Truncated File Read"),
        (encoded(Image.new("I;16", (9, 9)), "PNG"), "mode I;16, expected 8 bits per channel"),
        (encoded(Image.new("F", (9, 9)), "TIFF"), "mode F, expected 8 bits per channel"),
        (encoded(Image.new("RGB", (1, 60_000)), "PNG"), "1 x 60000 pixels: too elongated for a crop of 64"),
    ],
)
def test_unreadable_content_has_a_reason(content: bytes, why: str) -> None:
    """Wrong: one file in a million would end the preparation, or fill the memory."""
    with pytest.raises(UnreadableImageError, match=why) as first:
        decode(content, 64, upright=False)
    with pytest.raises(UnreadableImageError) as again:
        decode(content, 64, upright=False)
    assert str(first.value) == str(again.value), "the manifest is the same each time"


def test_too_large_images_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a small file that unpacks to gigabytes would take the machine down."""
    monkeypatch.setattr(module, "MAX_PIXELS", 500)
    with pytest.raises(UnreadableImageError, match="30 x 20 pixels, expected 500 at most"):
        decode(KINDS["rgb"], 8, upright=False)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    with pytest.raises(UnreadableImageError, match="larger than"):
        decode(KINDS["rgb"], 8, upright=False)


def test_damaged_tags_make_no_noise(recwarn: pytest.WarningsRecorder) -> None:
    """Wrong: a warning for each of a thousand files would hide the progress."""
    damaged = KINDS["turned"].replace(b"Exif\0\0", b"Exif\0\0\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(damaged, 8, upright=False)
