"""Reading ImageNet's tar of tars in place, and tars that are not what they should be."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import encoded, picture, write_tar, write_tar_of_tars

from dip.data import tar
from dip.data.source import open_source
from dip.schema import ImageNet

Make = Callable[..., ImageNet]
Files = dict[str, bytes]
JPEG = encoded(picture())


def inner_tar(tmp_path: Path, *names: str) -> bytes:
    return write_tar(tmp_path / "inner", [(name, JPEG) for name in names])


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("n01.tar", ["../../evil.JPEG"])], r"the path '\.\./\.\./evil\.JPEG' leads out of the archive"),
        ([("n01.tar", ["/etc/evil.JPEG"])], r"the path '/etc/evil\.JPEG' leads out of the archive"),
        ([("../n01.tar", ["a.JPEG"])], r"the path '\.\./n01\.tar' leads out of the archive"),
        ([("n01.tar", ["a.JPEG", "a.JPEG"])], r"'n01/a\.JPEG' is there twice"),
        ([("n01.tar", ["a.JPEG"]), ("n01.tar", ["b.JPEG"])], "the class 'n01' is there twice"),
        ([("n01.tar", ["a.JPEG"]), ("n02.tar", [])], "n02: no images; every class needs at least one"),
        ([("n01.tar", ["a.JPEG"]), ("b.JPEG", None)], r"'b\.JPEG' is not a tar; expected one tar for each class"),
        ([], "no images; expected a folder of class folders"),
    ],
)
def test_tars_that_cannot_be_used(
    tmp_path: Path, settings: Make, members: list[tuple[str, list[str] | None]], message: str
) -> None:
    """Wrong: a doctored or repacked archive would write outside, or images would be counted twice."""
    contents = [(name, JPEG if inner is None else inner_tar(tmp_path, *inner)) for name, inner in members]
    write_tar(tmp_path / "train.tar", contents)
    with pytest.raises(ValueError, match=message):
        open_source("x", settings(tmp_path / "train.tar"))
    assert not any(tmp_path.parent.glob("*evil*"))


def test_links_in_a_tar_are_refused(tmp_path: Path, settings: Make) -> None:
    """Wrong: a link could stand for any file of the machine."""
    with tarfile.open(tmp_path / "inner", "w") as file:
        link = tarfile.TarInfo("a.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    write_tar(tmp_path / "train.tar", [("n01.tar", (tmp_path / "inner").read_bytes())])
    with pytest.raises(ValueError, match=r"'a\.JPEG' is a link, a device or sparse"):
        open_source("x", settings(tmp_path / "train.tar"))


def forged(path: Path, name: bytes, field: slice, value: bytes) -> None:
    """Write over a field of the header of a member, and make its checksum right."""
    content = bytearray(path.read_bytes())
    start = content.index(name + b"\0")
    header = content[start : start + 512]
    header[field] = value
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    content[start : start + 512] = header
    path.write_bytes(content)


@pytest.mark.parametrize("name", [b"a.JPEG", b"b.JPEG", b"n01.tar", b"n02.tar"])
@pytest.mark.parametrize(
    "size", [b"\x80" + bytes(3) + b"\xff" * 8, b"\xff" * 12, b"77777777777\0", b"\xff" * 10 + b"\0\0"]
)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, settings: Make, name: bytes, size: bytes) -> None:
    """Wrong: a traceback of the operating system, reading without end, or classes that are silently left out.

    Sizes below zero are refused by tarfile itself, in other words, where CVE-2025-8194 is mended.
    """
    inner = inner_tar(tmp_path, "a.JPEG", "b.JPEG")
    write_tar(tmp_path / "train.tar", [("n01.tar", inner), ("n02.tar", inner)])
    forged(tmp_path / "train.tar", name, slice(124, 136), size)
    message = rf"cut off at '{name.decode()}', or that has a wrong size \("
    if size.startswith(b"\xff"):
        message = rf"({message}|\((a damaged header|invalid offset), at byte)"
    with pytest.raises(ValueError, match=rf"train\.tar: .* {message}"):
        open_source("x", settings(tmp_path / "train.tar"))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_of_gigabytes_are_not_read(tmp_path: Path, settings: Make, kind: bytes) -> None:
    """Wrong: 148 GB would be read into memory as the name of a file."""
    write_tar(tmp_path / "train.tar", [("n01.tar", inner_tar(tmp_path, "a.JPEG")), ("n02.tar", b"")])
    forged(tmp_path / "train.tar", b"n02.tar", slice(124, 157), b"77777777777\0" + bytes(20) + kind)
    message = r"\(a header of more than 1,048,576 bytes, at byte [\d,]+, after 'n01\.tar'\)"
    with pytest.raises(ValueError, match=message):
        open_source("x", settings(tmp_path / "train.tar"))


@pytest.mark.parametrize("name", [b"a.JPEG", b"b.JPEG", b"n01.tar", b"n02.tar"])
@pytest.mark.parametrize("damage", ["bit", "hole"])
def test_damaged_headers_are_no_end(tmp_path: Path, settings: Make, name: bytes, damage: str) -> None:
    """Wrong: what comes after the damage would be left out without a word: tarfile takes it for the end."""
    inner = inner_tar(tmp_path, "a.JPEG", "b.JPEG")
    content = bytearray(write_tar(tmp_path / "train.tar", [("n01.tar", inner), ("n02.tar", inner)]))
    start = content.index(name + b"\0")
    content[start : start + 512] = bytes(512) if damage == "hole" else b"!" + content[start + 1 : start + 512]
    (tmp_path / "train.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"train\.tar: not a complete, uncompressed tar \(.* at byte [\d,]+"):
        open_source("x", settings(tmp_path / "train.tar"))


@pytest.mark.parametrize("rest", [b"", bytes(100), bytes(1 << 21), bytes(512) + b"more"])
def test_an_archive_ends_with_its_mark(tmp_path: Path, settings: Make, rest: bytes) -> None:
    """Wrong: a download that broke off between two files, or whose rest is still zeros, would be taken for whole."""
    content = write_tar(tmp_path / "train.tar", [("n01.tar", inner_tar(tmp_path, "a.JPEG"))])
    end = content.index(b"n01.tar") + 512 + 10240
    assert not any(content[end:])
    (tmp_path / "train.tar").write_bytes(content[:end] + rest)
    with pytest.raises(ValueError, match=r"at byte [\d,]+, after 'n01\.tar'\)"):
        open_source("x", settings(tmp_path / "train.tar"))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats_are_read(tmp_path: Path, settings: Make, format: int) -> None:
    """Wrong: files with long names, which take headers of their own, would be refused or have short ones."""
    names = [f"{'long' * 20}/{letter * 50}.JPEG" for letter in "ab"]
    for path, members in (("inner.tar", dict.fromkeys(names, JPEG)), ("train.tar", {"n01.tar": None})):
        with tarfile.open(tmp_path / path, "w", format=format) as file:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                content = content or (tmp_path / "inner.tar").read_bytes()
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    source = open_source("x", settings(tmp_path / "train.tar", num_classes=1, num_images=2))
    assert source.part(0, 2).names == [f"n01/{name}" for name in names] and list(source.part(0, 2).read()) == [JPEG] * 2


@pytest.mark.parametrize("keep", [0, 100, 600, 3000, -2000, -10300])
def test_incomplete_tar_is_refused(tmp_path: Path, files: Files, settings: Make, keep: int) -> None:
    """Wrong: a download that broke off would be trained on."""
    path = write_tar_of_tars(tmp_path / "train.tar", {name: bytes(3000) for name in files})
    content = path.read_bytes().rstrip(b"\0") if keep < 0 else path.read_bytes()
    path.write_bytes(content[:keep])
    with pytest.raises(ValueError, match=r"train\.tar: (not a complete|.* is cut off|.*no images)|num_classes"):
        open_source("x", settings(path))


def test_class_tar_that_is_cut_off_is_refused(tmp_path: Path, settings: Make) -> None:
    """Wrong: images of the next class would be taken for those of this one."""
    inner = inner_tar(tmp_path, "a.JPEG", "b.JPEG")
    cut = inner[: inner.index(b"b.JPEG") + 512 + 100]
    write_tar(tmp_path / "train.tar", [("n01.tar", cut), ("n02.tar", inner_tar(tmp_path, "c.JPEG"))])
    with pytest.raises(ValueError, match=r"'n01\.tar' is cut off at 'b\.JPEG'"):
        open_source("x", settings(tmp_path / "train.tar"))


def test_compressed_tar_is_refused(tmp_path: Path, settings: Make) -> None:
    """Wrong: images could not be read where they lie."""
    with tarfile.open(tmp_path / "train.tar", "w:gz") as file:
        file.addfile(tarfile.TarInfo("n01.tar"), io.BytesIO())
    with pytest.raises(ValueError, match="not a complete, uncompressed tar"):
        open_source("x", settings(tmp_path / "train.tar"))


def test_tar_that_shrinks_is_noticed(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: half an image would be taken for a damaged one."""
    path = write_tar_of_tars(tmp_path / "train.tar", files)
    part = tar.TarSource.open(path).part(0, 5)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="it has changed, run the preparation again"):
        list(part.read())
