"""What stands in a work folder beside a stage's own state: who works in it, what at, how far, and how it ended.

`task.json` says what the folder is for. Two locks go with the processes that hold them, however these end:
`launcher.lock` (who starts and follows the work) and `worker.lock` (who does it; its content names the process).
`job.json` is the SLURM job, `progress.json` how far the work is, `end.json` why it last ended without a result,
`published.json` what it has brought to the run's folder.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dip.files import write_json

_log = logging.getLogger(__name__)
_PROBE_SECONDS = 0.2


class OccupiedError(RuntimeError):
    """Another process works in the folder; the message names it."""


class WorkFolder:
    """The records and locks of one work folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, task: dict[str, Any]) -> None:
        """Make the folder, or check that it is the one of this task.

        Args:
            task: Run, stage and parameters.

        Raises:
            ValueError: The folder is of another task.
            OSError: It cannot be made or written to.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if (found := self.read("task")) is None:
            write_json(self.path / "task.json", task)
        elif found != task:
            raise ValueError(
                f"{self.path / 'task.json'}: the folder is of {_difference(found, task)}; remove the folder, or "
                "move it away, to start anew"
            )

    def read(self, name: str) -> dict[str, Any] | None:
        """A record, None if there is none or it cannot be read."""
        try:
            content = json.loads((self.path / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def note(self, name: str, content: dict[str, Any] | None) -> None:
        """Write a record, or remove it."""
        if content is None:
            (self.path / f"{name}.json").unlink(missing_ok=True)
        else:
            write_json(self.path / f"{name}.json", content)

    @contextlib.contextmanager
    def launching(self) -> Iterator[None]:
        """Hold the folder as the one that starts and follows its work.

        A second process waits: the first may be of a workflow that was killed and started again, and what it makes is
        what the second would make.
        """
        with (self.path / "launcher.lock").open("a+") as file:
            if not _try_lock(file, fcntl.LOCK_EX):
                _log.warning("another process is at work in %s; waiting for it to end", self.path)
                while not _try_lock(file, fcntl.LOCK_EX):
                    time.sleep(_PROBE_SECONDS)
            yield

    @contextlib.contextmanager
    def working(self, patience: float) -> Iterator[None]:
        """Hold the folder as the one process that does its work.

        Args:
            patience: Seconds to wait for another process to end.

        Raises:
            OccupiedError: Another process is still at work after that.
        """
        end = time.monotonic() + patience
        with (self.path / "worker.lock").open("a+") as file:
            while not _try_lock(file, fcntl.LOCK_EX):
                if time.monotonic() > end:
                    raise OccupiedError(f"{self.path}: {name_of(self.worker() or {})} is at work in it; not starting")
                time.sleep(_PROBE_SECONDS)
            self._sign(file)
            yield

    def _sign(self, file: IO[str]) -> None:
        """Write into the lock which process holds it."""
        content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "job_id": this_job()}).encode()
        try:
            file.truncate(0)
            # Past the buffer, which would be written again at the end.
            if os.write(file.fileno(), content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            error.filename = file.name  # of a full disk, which else nobody would know
            raise

    def worker(self) -> dict[str, Any] | None:
        """Host, process and SLURM job of who works in the folder, None if nobody does."""
        try:
            with (self.path / "worker.lock").open("r") as file:
                if _try_lock(file, fcntl.LOCK_SH):
                    return None
                content = json.loads(file.read() or "{}")
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None


def this_job() -> str | None:
    """SLURM job that this process was submitted as."""
    return os.environ.get("SLURM_JOB_ID") if "SUBMITIT_EXECUTOR" in os.environ else None


def _try_lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise OSError(
            error.errno, "no file locks there (Lustre: mount it with -o flock); put work/ on another disk", file.name
        ) from None
    return True


def name_of(worker: dict[str, Any]) -> str:
    """A worker in words."""
    process = f"process {worker.get('pid')} of {worker.get('host')}"
    return f"SLURM job {worker['job_id']} ({process})" if worker.get("job_id") else process


def _difference(found: dict[str, Any], task: dict[str, Any], keys: str = "") -> str:
    """The first key in which two tasks differ, with both values."""
    for key in sorted({*found, *task}):
        one, other = found.get(key), task.get(key)
        if isinstance(one, dict) and isinstance(other, dict) and one != other:
            return _difference(one, other, f"{keys}{key}.")
        if one != other:
            return f"other parameters ({keys}{key} is {json.dumps(one)}, expected {json.dumps(other)})"
    raise AssertionError("the tasks are equal")
