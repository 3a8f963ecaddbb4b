"""Atomic writes: the old file or the new one, never half of it."""

from __future__ import annotations

import errno
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dip.files import atomic_write, sha256, write_json


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes, which a write notices as it notices a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_content_appears_at_the_end_only(tmp_path: Path) -> None:
    """Wrong: a reader would see half a file."""
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as file:
        file.write("grüß")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "grüß".encode()
    assert list(path.parent.iterdir()) == [path]


def test_interrupted_write_keeps_the_old_content(tmp_path: Path) -> None:
    """Wrong: Ctrl-C in the middle of a write would destroy an earlier result or leave litter."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_keeps_the_old_content_and_names_the_file(tmp_path: Path) -> None:
    """Wrong: half a file under the final name, or an error that does not say where there was no room."""
    path = tmp_path / "file"
    path.write_text("old")
    with full_disk(1000), pytest.raises(OSError, match=r"File too large.*/file"), atomic_write(path, "wb") as file:
        file.write(bytes(10_000))
    assert path.read_text() == "old"
    with pytest.raises(OSError, match=r"No space left.*/file"), atomic_write(path) as file:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_the_file(tmp_path: Path) -> None:
    """Wrong: results would be readable by their owner only, as temporary files are."""
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "file"):
        pass
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "file")}
    assert len(modes) == 1


def test_json_is_sorted_and_has_no_nan(tmp_path: Path) -> None:
    """Wrong: equal contents would have different checksums, or a NaN would make a file that is not JSON."""
    path = tmp_path / "file.json"
    write_json(path, {"b": 1, "a": 2})
    assert path.read_text() == '{\n  "a": 2,\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"fid": float("nan")})
    assert '"a": 2' in path.read_text()


def test_checksum(tmp_path: Path) -> None:
    """Wrong: checksums would not compare with those of `sha256sum`."""
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
