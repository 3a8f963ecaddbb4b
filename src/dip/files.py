"""Writing files so that a crash at any moment leaves either the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success fsync it and rename it to `path`.

    Args:
        path: File to write; its folder is made if it is missing.
        mode: "w" (UTF-8 text) or "wb".

    Raises:
        OSError: The folder cannot be written to or the disk is full; `path` keeps its earlier content. Or it is a
            device such as /dev/null, which the file would replace for the whole machine.
    """
    path = Path(path)
    descriptor, temporary = _temporary(path)
    try:
        os.fchmod(descriptor, 0o666 & ~_umask())
        with os.fdopen(descriptor, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # still open, and so still held
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            error.filename = str(path)  # so that the message says which file had no room
        raise
    _fsync_folder(path.parent)


def atomic_copy(source: str | Path, target: str | Path) -> None:
    """Copy a file of any size to `target`, atomically; errors as in `atomic_write`."""
    with Path(source).open("rb") as file, atomic_write(target, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 24)


def atomic_link(source: str | Path, target: str | Path) -> None:
    """Have a file at `target` too, atomically: by a hard link, or a copy where there is none. Errors as of the copy."""
    source, target = Path(source), Path(target)
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_left(target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        os.link(source, temporary)
        temporary.replace(target)
    except OSError:  # another file system, or one without hard links
        temporary.unlink(missing_ok=True)
        atomic_copy(source, target)
    _fsync_folder(target.parent)


def check_writable(path: str | Path) -> None:
    """Refuse what `atomic_write` could not write, before the work whose result it is.

    Raises:
        OSError: The path is a folder or a device, its folder cannot be made or written to, or the disk is full to the
            last block.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file", str(path))
    descriptor, temporary = _temporary(path)
    try:
        os.write(descriptor, bytes(4096))  # an empty file has its place on a full disk, too
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON with sorted keys, atomically."""
    with atomic_write(path) as file:
        json.dump(content, file, indent=2, sort_keys=True, allow_nan=False)
        file.write("\n")


def write_npy(path: str | Path, array: NDArray[Any]) -> None:
    """Write an array of numbers of any shape as .npy, atomically, with the bytes of `np.save`.

    Raises:
        OSError: The file cannot be written; of a full disk `np.save` would say neither that it is full nor which.
    """
    import numpy as np  # not needed by commands that only look

    array = np.ascontiguousarray(array)
    with atomic_write(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content as a hexadecimal string."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> tuple[int, Path]:
    """A new file beside `path` that this process holds by a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise OSError(errno.EINVAL, "is a device, a pipe or a socket, and a file would take its place; name a file")
        _remove_left(path)
        while True:
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if (temporary := Path(name)).exists():
                return descriptor, temporary
            os.close(descriptor)  # another process took it for one that was left, before it was held
    except OSError as error:
        error.filename = str(path)  # the one that somebody asked for
        raise


def _remove_left(path: Path) -> None:
    """Remove temporary files of `path` that killed processes left; nobody holds those."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError), left.open("r+b") as file:  # it is held, or there are no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _fsync_folder(folder: Path) -> None:
    """Make a rename durable; some network file systems refuse it, and then there is nothing to do."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
