"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; another that asks for it waits. The lock goes with the process.

    What a killed process left half-written in the folder is removed.

    Raises:
        OSError: The folder cannot be written to, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("another process works in %s; waiting for it to end", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            what = "the file system has no locks (Lustre: mount it with -o flock)"
            raise OSError(error.errno, what, str(folder)) from None
        for path in folder.glob(".*.tmp"):
            path.unlink()
        yield
