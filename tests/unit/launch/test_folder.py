"""Records and locks of a work folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dip.launch.folder import OccupiedError, WorkFolder, name_of
from full_disk import full_disk

TASK = {"run": "dip", "stage": "train", "parameters": {"training": {"seed": 0}}}

HOLD = """
import sys, time
from pathlib import Path
from dip.launch.folder import WorkFolder
with WorkFolder(Path(sys.argv[1])).working(0):
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> WorkFolder:
    folder = WorkFolder(tmp_path / "work")
    folder.open(TASK)
    return folder


def test_folder_of_other_parameters_is_refused(folder: WorkFolder) -> None:
    """Wrong: weights of other parameters would go into a result; or the person could not tell which differ."""
    folder.open(TASK)
    other = {**TASK, "parameters": {"training": {"seed": 1}}}
    with pytest.raises(ValueError, match=r"task.json: .*\(parameters.training.seed is 0, expected 1\)"):
        folder.open(other)


def test_unreadable_records_count_as_none(folder: WorkFolder) -> None:
    """Wrong: half a record, of a machine that lost power, would end every later call."""
    assert folder.read("job") is None
    (folder.path / "job.json").write_text('{"job_id": ')
    assert folder.read("job") is None
    folder.note("job", {"job_id": "7"})
    assert folder.read("job") == {"job_id": "7"}
    folder.note("job", None)
    assert folder.read("job") is None


def test_a_second_worker_refuses(folder: WorkFolder) -> None:
    """Wrong: two jobs would write each other's checkpoints; or a killed one would block the folder for ever."""
    assert folder.worker() is None
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    worker = folder.worker()
    assert worker is not None and worker["pid"] == process.pid
    with pytest.raises(OccupiedError, match=rf"process {process.pid} of .* is at work in it"), folder.working(0.1):
        pass
    process.kill()
    process.wait()
    assert folder.worker() is None
    with folder.working(0):
        assert (folder.worker() or {})["pid"] == os.getpid()


def test_one_who_asks_is_not_at_work(folder: WorkFolder) -> None:
    """Wrong: two calls of `dip status` at a time would each show the last worker as still at work."""
    with folder.working(0):
        pass
    with (folder.path / "worker.lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)  # as `worker` does while it asks
        assert folder.worker() is None


def test_a_second_launcher_waits(folder: WorkFolder, caplog: pytest.LogCaptureFixture) -> None:
    """Wrong: the launcher of a restarted workflow would submit a second job, or fail."""
    inside: list[float] = []

    def second() -> None:
        with folder.launching():
            inside.append(time.monotonic())

    with folder.launching():
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.5)
        assert not inside
    thread.join(timeout=5)
    assert inside
    assert "another process is at work in" in caplog.text


def test_job_is_named(monkeypatch: pytest.MonkeyPatch, folder: WorkFolder) -> None:
    """Wrong: a person would look for a process where there is a SLURM job."""
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    with folder.working(0):
        assert (folder.worker() or {})["job_id"] is None, "a shell inside an allocation is no job of ours"
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    with folder.working(0):
        assert name_of(folder.worker() or {}).startswith("SLURM job 12 (process")


def test_file_system_without_locks(folder: WorkFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: on such a disk two jobs would share a folder, or the error would name neither file nor remedy."""

    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match=r"no file locks there .*launcher\.lock"), folder.launching():
        pass


def test_full_disk_names_the_lock(folder: WorkFolder) -> None:
    """Wrong: "No space left on device", and nobody would know on which disk."""
    for size in (0, 10):
        with full_disk(size), pytest.raises(OSError, match=r"(File too large|No space .*): '.*/worker\.lock'"):
            folder.working(0).__enter__()
    with folder.working(0):
        assert (folder.worker() or {})["pid"] == os.getpid()


def test_records_are_json(folder: WorkFolder) -> None:
    """Wrong: other tools could not read them."""
    assert json.loads((folder.path / "task.json").read_text()) == TASK
