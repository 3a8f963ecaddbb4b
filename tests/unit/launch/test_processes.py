"""Several processes of this machine: who gets which signal, and what is told in the end."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from dip.launch import processes
from dip.launch.folder import WorkFolder
from dip.launch.jobs import JobFailedError, TrainingJob
from dip.launch.launcher import Launcher, launch
from dip.launch.processes import work_in_processes
from dip.paths import RunFolder, Store

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.mark.slow
def test_several_processes_of_this_machine(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: `--processes 2` would train in one, or twice; or a failure of one would go unnoticed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch(job, Launcher(processes=2))
    assert job.target.model.exists()
    other = TrainingJob.of("dip", RunFolder.of("demo", "other"), job.spec.model_copy(update={"code_version": 2}))
    manifest = Store.of("photos").manifest
    content = manifest.read_text()
    manifest.write_text("{}")
    with pytest.raises(JobFailedError, match=r"the 2 processes of dip ended without a result \(exit code 1\)"):
        launch(other, Launcher(processes=2))
    manifest.write_text(content)


@pytest.mark.slow
def test_signals_to_all_processes_save_and_end_in_order(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong: torchrun would kill who saves for 30 seconds, or a wanted end would look like a failure."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    training = job.spec.training.model_copy(update={"epochs": 10_000})
    job = replace(job, spec=job.spec.model_copy(update={"training": training}))
    main, saved = threading.get_ident(), []

    def until(pattern: str) -> bool:
        end = time.monotonic() + 60
        while not (found := list(job.work.glob(pattern))) and time.monotonic() < end:
            time.sleep(0.1)
        return bool(found)

    def send() -> None:
        until("training.jsonl")
        signal.pthread_kill(main, signal.SIGUSR2)
        saved.append(until("state-*.json"))
        worker = WorkFolder(job.work).worker()
        assert worker is not None
        torchrun = psutil.Process(worker["pid"]).parent()
        assert torchrun is not None
        for process in (torchrun, *torchrun.children()):
            process.terminate()
        signal.pthread_kill(main, signal.SIGTERM)

    before = signal.signal(signal.SIGUSR2, lambda number, frame: None)
    thread = threading.Thread(target=send)
    thread.start()
    with pytest.raises(SystemExit) as stopped:
        launch(job, Launcher(processes=2))
    thread.join()
    signal.signal(signal.SIGUSR2, before)
    assert saved == [True] and stopped.value.code == 128 + signal.SIGTERM
    assert WorkFolder(job.work).read("end") == {"job_id": None, "terminated": True, "error": None}
    told = capfd.readouterr().err
    assert "stopped by SIGTERM; the last good checkpoint is of step" in told.splitlines()[-1]
    assert str(job.work) in told and told.count("stopped by") == 1
    assert "Traceback" not in told and "closing signal" not in told


@pytest.mark.parametrize("begun", [False, True])
def test_processes_that_do_not_listen_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bool) -> None:
    """Wrong: a training that hangs, or has not begun, could only be ended by kill -9."""
    told: list[int] = []
    monkeypatch.setattr(processes, "_signal_worker", lambda folder, number: (told.append(number), begun)[1])
    monkeypatch.setattr(processes, "SAME_SECONDS", 0)
    main = threading.get_ident()
    for number in range(1 + begun):
        threading.Timer(0.5 + number / 2, signal.pthread_kill, (main, signal.SIGINT)).start()
    assert processes._call(SLEEP, WorkFolder(tmp_path)) == (-signal.SIGKILL, signal.SIGINT)
    assert told == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_that_comes_twice_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: what a scheduler sends to the group and to the launcher would kill who saves."""
    monkeypatch.setattr(processes, "_signal_worker", lambda folder, number: True)
    main = threading.get_ident()
    for seconds in (0.5, 0.7):
        threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGTERM)).start()
    short = [sys.executable, "-c", "import time; time.sleep(1)"]
    assert processes._call(short, WorkFolder(tmp_path)) == (0, signal.SIGTERM)


@pytest.mark.parametrize(
    ("code", "asked", "end", "expected"),
    [
        (0, None, {"terminated": True}, 128 + signal.SIGTERM),  # `dip cancel`
        (0, signal.SIGINT, {"terminated": True}, 128 + signal.SIGINT),
        (-signal.SIGKILL, signal.SIGINT, None, 128 + signal.SIGINT),
        (-signal.SIGKILL, None, None, r"ended without a result \(signal SIGKILL\)"),
        (
            1,
            None,
            {"terminated": False, "error": "OSError: full"},
            r"ended .* \(exit code 1\); OSError: full; see above",
        ),
    ],
)
def test_wanted_ends_are_no_failures(
    job: TrainingJob,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    asked: signal.Signals | None,
    end: dict[str, Any] | None,
    expected: int | str,
) -> None:
    """Wrong: who pressed Ctrl-C would look for an error; or a killed training would pass for one that was stopped."""
    folder = WorkFolder(job.work)
    folder.open(job.task)
    folder.note("end", {"terminated": True, "error": None})  # an earlier call's
    (job.work / "state-00000007.json").touch()

    def call(*arguments: Any) -> tuple[int, signal.Signals | None]:
        assert folder.read("end") is None
        folder.note("end", end)
        return code, asked

    monkeypatch.setattr(processes, "_call", call)
    if isinstance(expected, str):
        with pytest.raises(JobFailedError, match=expected):
            work_in_processes(job, folder, 2)
        return
    with pytest.raises(SystemExit) as stopped:
        work_in_processes(job, folder, 2)
    assert stopped.value.code == expected
    line = f"stopped by SIGINT; its last checkpoint is of step 7 in {job.work}; run the same command again to go on"
    assert [record.getMessage() for record in caplog.records] == ([line] if code else [])


def test_processes_die_with_torchrun(tmp_path: Path) -> None:
    """Wrong: they would wait for its store for 15 minutes, and the next call for them."""
    job = tmp_path / "job.pkl"
    job.write_bytes(pickle.dumps(partial(os.system, "echo begun; exec sleep 60")))
    worker = [sys.executable, "-m", "dip.launch.worker", str(job)]
    code = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True).wait()"
    torchrun = ["sh", "-c", processes._DEAF, sys.executable, "-c", code, *worker]
    with subprocess.Popen(torchrun, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        (started,) = psutil.Process(process.pid).children()
        process.terminate()  # it is deaf
        assert started.is_running() and process.poll() is None
        sleeping = started.children()
        process.kill()
        started.wait(timeout=10)
        for child in sleeping:
            child.kill()
    orphan = subprocess.run(worker, env={**os.environ, "TORCHRUN_PID": "1"}, stdout=subprocess.PIPE, check=False)
    assert (orphan.returncode, orphan.stdout) == (1, b"")
