"""Atomic writes: the old file or the new one, never half of it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dip.files import atomic_link, atomic_write, check_writable, sha256, write_json, write_npy
from full_disk import full_disk


def test_content_appears_at_the_end_only(tmp_path: Path) -> None:
    """Wrong: a reader would see half a file."""
    path = tmp_path / "new" / "file.txt"
    with atomic_write(path) as file:
        file.write("grüß")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "grüß".encode()
    assert list(path.parent.iterdir()) == [path]


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: after a power cut the file would be there, and empty."""
    path, synced = tmp_path / "file", []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_size, path.exists())))
    with atomic_write(path) as file:
        file.write("new")
    assert synced[0] == (3, False)


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


@pytest.mark.parametrize("array", [np.arange(12, dtype=np.uint8).reshape(2, 3, 2), np.arange(6).reshape(2, 3).T])
def test_arrays_are_those_of_numpy(tmp_path: Path, array: NDArray[Any]) -> None:
    """Wrong: a store would hold other images than it was given, or checksums of earlier ones would not fit."""
    write_npy(tmp_path / "own.npy", array)
    np.save(tmp_path / "numpy.npy", np.ascontiguousarray(array))
    assert (tmp_path / "own.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert np.array_equal(np.load(tmp_path / "own.npy"), array)


def test_full_disk_is_noticed_before_the_work(tmp_path: Path) -> None:
    """Wrong: an empty file fits on a full disk, and a network would be trained before its file is refused."""
    with full_disk(0), pytest.raises(OSError, match=r"File too large.*/file"):
        check_writable(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writer_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    """Wrong: every kill would leave gigabytes behind, or two writers of one file would take each other's away."""
    path, left = tmp_path / "file", tmp_path / ".file.abc.tmp"
    left.write_text("half")
    other = tmp_path / ".file2.abc.tmp"
    other.write_text("of another file")
    with atomic_write(path) as first:
        first.write("first")
        with atomic_write(path) as second:
            second.write("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert sorted(tmp_path.iterdir()) == [other, path]


def test_link_is_the_same_file_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a result would take its room twice, or could not be published to another disk."""
    source, target = tmp_path / "work" / "file", tmp_path / "results" / "file"
    source.parent.mkdir()
    source.write_text("content")
    atomic_link(source, target)
    atomic_link(source, target)
    assert target.samefile(source)
    target.unlink()
    target.write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(errno.EXDEV, "Invalid cross-device link")))
        atomic_link(source, target)
    assert target.read_text() == "content" and not target.samefile(source)
    assert list(target.parent.iterdir()) == [target]


def test_file_that_cannot_be_written_is_named_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the message would name a temporary file, which nobody has asked for."""
    path = tmp_path / "file"

    def refused(dir: Path, prefix: str, suffix: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"{dir}/{prefix}abc{suffix}")

    monkeypatch.setattr("tempfile.mkstemp", refused)
    for write in (atomic_write(path).__enter__, lambda: check_writable(path)):
        with pytest.raises(PermissionError, match=r"Permission denied: '.*/file'$"):
            write()


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Wrong: as root, `--output /dev/null` would put a file in the place of the whole machine's /dev/null."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for write in (atomic_write(path).__enter__, lambda: check_writable(path)):
        with pytest.raises(OSError, match=r"is a device, a pipe or a socket, .*; name a file: '.*/pipe'$"):
            write()
    assert path.is_fifo() and list(tmp_path.iterdir()) == [path]


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
