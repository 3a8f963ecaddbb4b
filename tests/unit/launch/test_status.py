"""`dip status` and `dip cancel`, from what stands in folders and what a stand-in for squeue says."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import FakeSlurm

from dip import params
from dip.launch import slurm
from dip.launch.folder import WorkFolder
from dip.launch.jobs import EvaluationJob, SamplingJob, TrainingJob
from dip.launch.launcher import launch
from dip.launch.status import cancel, run_states, status
from dip.paths import RunFolder
from dip.schema import EvaluationSpec, Params, SamplingSpec, TrainingSpec

PROGRESS = {"done": 40, "total": 100, "unit": "step", "rate": 2.0, "time": 0}

HOLD = """
import signal, sys, time
from pathlib import Path
from dip.launch.folder import WorkFolder
with WorkFolder(Path(sys.argv[1])).working(0):
    print("at work", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def read(workplace: Path, fake_slurm: FakeSlurm) -> Params:
    return params.load()


@pytest.fixture
def folder(read: Params, spec: TrainingSpec) -> WorkFolder:
    """Work folder of the training of `dip`, as far as a launcher makes it."""
    job = TrainingJob.of("dip", RunFolder.of("demo", "dip"), spec)
    folder = WorkFolder(job.work)
    folder.open(job.task)
    return folder


def state(read: Params, run: str = "dip", stage: str = "train") -> dict[str, Any]:
    """What is told of one stage of a run."""
    rows = json.loads(status(read, as_json=True))
    return next(row for row in rows if (row["run"], row["stage"]) == (run, stage))


def test_nothing_has_begun(read: Params) -> None:
    """Wrong: seventy lines that say nothing; or a run that a person asks for would be missing."""
    assert status(read) == "not started: 3 of demo (--study lists them)"
    text = status(read, "demo")
    assert [line.split()[:4] for line in text.splitlines()[1:]] == [
        [run, "train", "not", "started"] for run in ("dip", "dit", "deep")
    ]
    assert status(read, "paper") == ""


def test_stages_stand_in_their_order_and_once(
    read: Params, folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: samples before their training, and a line for every weights that there have ever been."""
    spec, target, weights = read.runs["dip"].part(SamplingSpec), RunFolder.of("demo", "dip"), Path("weights")
    monkeypatch.setattr(SamplingJob, "inputs", lambda *arguments: {weights: "dip train dip"})
    for time, content in enumerate(("earlier", "now")):
        weights.write_text(content)
        job = SamplingJob.of("dip", target, spec)
        work = WorkFolder(job.work)
        work.open(job.task)
        os.utime(job.work / "task.json", (time, time))  # before the training, which `folder` is of
        work.note("end", {"error": content})
    found = [state for state in run_states(read) if state.run == "dip"]
    assert [(state.stage, state.note) for state in found] == [("train", None), ("sample", "now")]


def test_job_in_the_queue_running_and_put_back(read: Params, folder: WorkFolder, fake_slurm: FakeSlurm) -> None:
    """Wrong: a person would start what waits, or cancel what only was preempted."""
    folder.note("job", {"job_id": "7"})
    name = slurm.job_name(folder.path)
    fake_slurm.queue(f"7|{name}|PENDING|Priority|")
    assert (found := state(read))["state"] == "queued"
    assert (found["job_id"], found["note"], found["rate"]) == ("7", "Priority", None)
    folder.note("progress", PROGRESS)
    slurm.logs_of(folder.path).mkdir()
    (slurm.logs_of(folder.path) / "7_0_log.err").touch()
    fake_slurm.queue(f"7|{name}|RUNNING|None|node3")
    assert (found := state(read))["state"] == "running"
    assert (found["step"], found["total"], found["rate"], found["seconds_left"]) == (40, 100, 2.0, 30.0)
    assert found["where"] == "node3"
    assert "40 of 100" in status(read) and "2/s" in status(read) and "30 s" in status(read)
    fake_slurm.queue(f"7|{name}|PENDING|BeginTime|")
    assert (found := state(read))["state"] == "requeued"
    assert (found["seconds_left"], found["note"]) == (None, "BeginTime")
    fake_slurm.queue(f"7|{name}|SPECIAL_EXIT|job requeued in held state|")
    assert (found := state(read))["state"] == "requeued"
    assert (found["seconds_left"], found["note"]) == (None, "job requeued in held state")


def test_job_that_nobody_recorded_is_found(read: Params, folder: WorkFolder, fake_slurm: FakeSlurm) -> None:
    """Wrong: a job whose launcher died at the wrong moment would be invisible."""
    fake_slurm.queue(f"7|{slurm.job_name(folder.path)}|RUNNING|None|node3")
    assert (state(read)["state"], state(read)["job_id"]) == ("running", "7")
    assert cancel(read, "dip") == [
        f"train of dip: cancelled SLURM job 7, which was running; its state stays in {folder.path}"
    ]
    assert fake_slurm.told("cancelled") == ["7"]


@pytest.mark.parametrize(
    ("job", "end", "expected", "note"),
    [
        (None, None, "stopped", None),
        ({"job_id": "7", "state": "CANCELLED"}, None, "stopped", None),
        ({"job_id": "7", "state": "TIMEOUT"}, None, "failed", "SLURM: TIMEOUT"),
        ({"job_id": "7", "state": "FAILED"}, {"job_id": "7", "error": "OSError: full\nx"}, "failed", "OSError: full"),
        (None, {"job_id": None, "terminated": True, "error": None}, "stopped", None),
    ],
)  # fmt: skip
def test_ends_without_a_result(
    read: Params, folder: WorkFolder, job: dict[str, Any] | None, end: dict[str, Any] | None, expected: str, note: str
) -> None:
    """Wrong: a failure would look like a pause; or the step that it goes on from would be one that was not saved."""
    folder.note("progress", PROGRESS)
    folder.note("job", job)
    folder.note("end", end)
    for step in (25, 36):
        (folder.path / f"state-{step:08d}.json").touch()
    (folder.path / "state-before.json").touch()  # a person's copy
    found = state(read)
    assert (found["state"], found["note"], found["step"]) == (expected, note, 36)


def test_scheduler_that_cannot_be_asked(
    read: Params, folder: WorkFolder, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: `dip status` would hang with the scheduler, or call a running job stopped."""
    folder.note("job", {"job_id": "7"})
    fake_slurm.queue("error: Unable to contact slurm controller")
    found = state(read)
    assert found["state"] == "unknown" and "SLURM does not answer" in found["note"]
    with pytest.raises(ValueError, match="SLURM job 7 cannot be cancelled: SLURM does not answer"):
        cancel(read, "dip")
    monkeypatch.setattr(slurm, "installed", lambda: False)
    assert state(read)["note"] == "squeue is not installed here"
    folder.note("job", {"job_id": "7", "state": "FAILED"})
    assert state(read)["state"] == "failed"


def test_process_of_this_machine_is_shown_and_ended(read: Params, folder: WorkFolder) -> None:
    """Wrong: a local training would be invisible, or `dip cancel` would end the wrong process."""
    folder.note("progress", PROGRESS)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    found = state(read)
    assert (found["state"], found["job_id"]) == ("running", None)
    assert found["where"] == f"process {process.pid} of {socket.gethostname()}"
    (line,) = cancel(read, "dip")
    assert f"ended process {process.pid}" in line and str(folder.path) in line
    assert process.wait(timeout=5) == -signal.SIGTERM
    assert state(read)["state"] == "stopped"
    assert cancel(read, "dip") == ["nothing works on dip"]


def test_process_of_another_machine_is_left_alone(
    read: Params, folder: WorkFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: a process that happens to have the same number here would be killed."""
    worker = {"host": "elsewhere", "pid": os.getpid(), "job_id": None}
    monkeypatch.setattr(WorkFolder, "worker", lambda self: worker)
    with pytest.raises(ValueError, match=r"process \d+ of elsewhere is at work in it; call `dip cancel` there"):
        cancel(read, "dip")


def test_finished_work(read: Params, spec: TrainingSpec) -> None:
    """Wrong: what is done would be shown as to be done, with its work folder or after a pull without it."""
    job = TrainingJob.of("dip", RunFolder.of("demo", "dip"), spec)
    launch(job)
    sampling = SamplingJob.of("dip", job.target, read.runs["dip"].part(SamplingSpec))
    launch(sampling)
    assert (state(read)["state"], state(read)["step"], state(read)["total"]) == ("done", 16, 16)
    assert state(read, stage="sample")["state"] == "done"
    Path("data/references").mkdir(parents=True)
    Path("data/references/photos.npz").touch()
    measuring = EvaluationJob.of("dip", job.target, read.runs["dip"].part(EvaluationSpec))
    evaluation = WorkFolder(measuring.work)
    evaluation.open(measuring.task)
    evaluation.note("progress", PROGRESS)  # of the reference's images
    evaluation.note("published", {str(job.target.samples): None})
    found, count = state(read, stage="evaluate"), measuring.spec.num_samples
    assert (found["state"], found["step"], found["total"]) == ("done", count, count)
    job.target.samples.unlink()
    assert state(read, stage="sample")["state"] == "stopped"
    for path in job.work.iterdir():
        if path.is_file():
            path.unlink()
    assert state(read)["state"] == "done"
    changed = Path("params.yaml").read_text().replace("learning_rate: 1.0e-2", "learning_rate: 2.0e-2")
    Path("params.yaml").write_text(changed)
    assert state(params.load())["state"] == "not started"


def test_work_with_earlier_parameters_shows_while_it_lives(
    read: Params, folder: WorkFolder, fake_slurm: FakeSlurm
) -> None:
    """Wrong: an edit of params.yaml would hide a job that still uses GPUs, or dead folders would fill the list."""
    changed = Path("params.yaml").read_text().replace("learning_rate: 1.0e-2", "learning_rate: 2.0e-2")
    Path("params.yaml").write_text(changed)
    new = params.load()
    assert [row.state for row in run_states(new) if row.run == "dip"] == ["not started"]
    fake_slurm.queue(f"7|{slurm.job_name(folder.path)}|RUNNING|None|node3")
    rows = [row for row in run_states(new) if row.run == "dip"]
    assert [(row.state, row.outdated) for row in rows] == [("not started", False), ("running", True)]
    assert "with other parameters than those of params.yaml now" in status(new)
    assert fake_slurm.told("cancelled") == []
    assert "cancelled SLURM job 7" in cancel(new, "dip")[0]
    folder.note("job", {"job_id": "7"})
    fake_slurm.queue("error: Unable to contact slurm controller")
    (found,) = (row for row in run_states(new) if row.outdated)
    assert found.state == "unknown"
    assert re.fullmatch(r"SLURM does not answer .*; with other parameters than those of params.yaml now", found.note)


def test_work_of_a_run_that_was_removed_shows_while_it_lives(
    read: Params, folder: WorkFolder, fake_slurm: FakeSlurm
) -> None:
    """Wrong: a job that holds GPUs would be seen by nobody, and could only be ended by who knows its number."""
    removed = read.model_copy(update={"runs": {name: run for name, run in read.runs.items() if run.name == "dit"}})
    assert [row.run for row in run_states(removed)] == ["dit"]
    fake_slurm.queue(f"7|{slurm.job_name(folder.path)}|PENDING|Priority|")
    (found,) = (row for row in run_states(removed) if row.run == "dip")
    assert (found.state, found.study, found.outdated) == ("queued", None, True)
    assert found.note == "Priority; a run that params.yaml no longer names"
    assert "not started: 1 of demo" in status(removed) and "no longer names" in status(removed)
    assert [row.run for row in run_states(removed, "demo")] == ["dit"]
    assert "cancelled SLURM job 7" in cancel(removed, "dip")[0]
    with pytest.raises(ValueError, match=r"runs\.dop: there is no such run"):
        cancel(removed, "dop")
