"""If these fail, a folder of images is evaluated as something else than it is."""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dip.evaluation.images import FolderImages, open_images, source_deviations

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve PNG files, numbered without leading zeros, and a text beside them."""
    path = tmp_path / "samples"
    path.mkdir()
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(path / f"{number}.png")
    (path / "notes.txt").write_text("not an image")
    return path


def test_images_are_in_the_order_of_their_numbers(folder: Path) -> None:
    """10.png would come before 2.png, and the Inception score would be of another order."""
    images = FolderImages(folder)
    assert images.shape == (12, 8, 8, 3) and len(images) == 12
    assert np.array_equal(images[:], IMAGES)
    assert np.array_equal(images[5:9], IMAGES[5:9])
    assert images[12:].shape == (0, 8, 8, 3)


def test_digits_that_are_no_numbers_are_text(folder: Path) -> None:
    """A folder with such a name in it could not be read."""
    (folder / "11.png").rename(folder / "9²3.png")
    assert np.array_equal(FolderImages(folder)[:], IMAGES[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 10]])


def test_equal_numbers_have_one_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checksum and Inception score would depend on the order in which a file system lists names."""
    Image.fromarray(IMAGES[0]).save(folder / "01.png")
    paths = FolderImages(folder).paths
    listed = list(folder.rglob("*"))
    for order in (sorted(listed), sorted(listed, reverse=True)):
        monkeypatch.setattr(Path, "rglob", lambda *_, order=order: order)
        assert FolderImages(folder).paths == paths


def test_hidden_files_are_no_images(folder: Path) -> None:
    """What a Mac or a notebook leaves would be counted, and a copy of an image be measured as one more."""
    (folder / "._3.png").write_bytes(b"\0\5\x16\7")
    (folder / ".ipynb_checkpoints").mkdir()
    Image.fromarray(IMAGES[3]).save(folder / ".ipynb_checkpoints" / "3.png")
    assert np.array_equal(FolderImages(folder)[:], IMAGES)


def test_folders_of_classes_are_read_in_turn(folder: Path) -> None:
    """Images one level below would be missed."""
    for number in range(12):
        target = folder / f"class{number % 3}"
        target.mkdir(exist_ok=True)
        (folder / f"{number}.png").rename(target / f"{number}.png")
    assert np.array_equal(FolderImages(folder)[:], IMAGES[[0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]])


def test_checksum_is_of_names_and_contents(folder: Path) -> None:
    """Two sets of samples could not be told apart."""
    first = FolderImages(folder).sha256
    assert first == open_images(folder)[1]()
    (folder / "11.png").rename(folder / "12.png")
    renamed = FolderImages(folder).sha256
    Image.fromarray(IMAGES[0]).save(folder / "12.png")
    assert len({first, renamed, FolderImages(folder).sha256}) == 3


def test_jpeg_is_flagged_with_its_cost(folder: Path) -> None:
    """FID of compressed images is far above that of the images themselves, and nothing would say so."""
    assert source_deviations(FolderImages(folder)) == []
    for number in (3, 4):
        (folder / f"{number}.png").unlink()
        name = {3: "3.jpg", 4: "4.png"}[number]  # one of them with the wrong ending
        Image.fromarray(IMAGES[number]).save(folder / name, "JPEG", quality=95)
    images = FolderImages(folder)
    assert images.shape == (12, 8, 8, 3)
    (text,) = source_deviations(images)
    assert text.startswith("2 JPEG files") and "from 2.5 to 5.8" in text


def test_an_npz_is_opened_as_before(tmp_path: Path) -> None:
    """Its checksum would not be the file's."""
    path = tmp_path / "samples.npz"
    np.savez(path, arr_0=IMAGES)
    images, checksum = open_images(path)
    assert np.array_equal(images[:], IMAGES)
    assert checksum() == hashlib.sha256(path.read_bytes()).hexdigest()
    assert source_deviations(images) == []


@pytest.mark.parametrize(
    ("mode", "message"),
    [("L", "mode L; expected 8-bit RGB"), ("RGBA", "mode RGBA"), ("P", "mode P"), ("I;16", "mode I;16")],
)
def test_other_pixels_are_refused(folder: Path, mode: str, message: str) -> None:
    """Grey, transparent or 16-bit images would be converted in silence."""
    if mode == "I;16":
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "7.png")
    else:
        Image.fromarray(IMAGES[7]).convert(mode).save(folder / "7.png")
    with pytest.raises(ValueError, match=rf"7\.png: .*{message}"):
        FolderImages(folder)[:]


def test_hidden_transparency_and_depth_are_refused(folder: Path) -> None:
    """Pillow calls both RGB, and would drop the transparent colour and half of the bits."""
    Image.fromarray(IMAGES[7]).save(folder / "7.png", transparency=(1, 2, 3))
    with pytest.raises(ValueError, match=r"7\.png: one of its colours is transparent"):
        FolderImages(folder)[:]
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    pixels = zlib.compress(8 * (b"\0" + 8 * 6 * b"\x7f"))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    (folder / "7.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.raises(ValueError, match=r"7\.png: its pixels have 16 bits a channel; expected 8-bit RGB"):
        FolderImages(folder)[:]


def test_broken_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    """Nothing in it, another size, a truncated file, a single image, or nothing at all."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="there are no images in it; expected PNG files, or give an npz"):
        open_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="expected an npz with the images under arr_0, or a folder of PNG"):
        open_images(folder / "0.png")
    with pytest.raises(FileNotFoundError, match="no such file"):
        open_images(tmp_path / "nowhere")
    Image.fromarray(np.zeros((8, 6, 3), np.uint8)).save(folder / "7.png")
    with pytest.raises(ValueError, match=r"7\.png: it has 8x6 pixels, and 0\.png has 8x8"):
        FolderImages(folder)[:]
    content = (folder / "5.png").read_bytes()
    (folder / "5.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"5\.png: cannot be read as an image"):
        FolderImages(folder)[4:6]


def test_damaged_headers_are_named(folder: Path) -> None:
    """A traceback out of a decoder, or a message that does not say which of 50,000 files it is."""
    Image.fromarray(IMAGES[5]).save(folder / "5.png", "JPEG")
    content = (folder / "5.png").read_bytes()
    size = content.index(b"\xff\xc0") + 5
    (folder / "5.png").write_bytes(content[:size] + b"\xff\xff\xff\xff" + content[size + 4 :])
    with pytest.raises(ValueError, match=r"5\.png: cannot be read as an image \(Image size"):
        FolderImages(folder)[4:6]
    short = b"IHDR\0\0\0\10"
    content = struct.pack(">I", 4) + short + struct.pack(">I", zlib.crc32(short))
    (folder / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(ValueError, match=r"5\.png: cannot be read as an image \(Truncated IHDR"):
        FolderImages(folder)[4:6]


@pytest.mark.parametrize("format", ["WEBP", "DDS"])
def test_other_formats_are_refused(folder: Path, format: str) -> None:
    """Lossy images would be measured as if they were not, and nothing would say so."""
    Image.fromarray(IMAGES[5]).save(folder / "5.png", format)
    with pytest.raises(ValueError, match=r"5\.png: cannot be read as an image: it is no PNG file, whatever its name"):
        FolderImages(folder)[4:6]


def test_names_that_are_no_text_have_a_checksum(folder: Path) -> None:
    """After hours of features, the evaluation would end in a message about surrogates."""
    os.rename(folder / "3.png", bytes(folder) + b"/3\xff.png")  # noqa: PTH104 - a name that is no text
    assert len(FolderImages(folder).sha256) == 64
