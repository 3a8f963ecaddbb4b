"""Launching here: one call at a time, nothing twice."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from dip.files import atomic_link
from dip.launch import jobs, slurm
from dip.launch.folder import WorkFolder
from dip.launch.jobs import LatencyJob, SamplingJob, TrainingJob
from dip.launch.launcher import Launcher, launch
from dip.schema import Params, SamplingSpec, TrainingSpec
from dip.training import loop


def never(*arguments: Any, **settings: Any) -> None:
    raise AssertionError("trained again")


def test_training_is_published_and_not_repeated(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: results that Snakemake deleted would cost a new training."""
    launch(job)
    published = job.target.model.read_bytes()
    with safe_open(job.target.model, framework="pt") as file:
        assert TrainingSpec.parse(file.metadata()["training"]) == job.spec
    monkeypatch.setattr(loop, "train", never)
    for path in job.target.folder.iterdir():
        path.unlink()
    launch(job)
    assert job.target.model.read_bytes() == published
    assert sorted(path.name for path in job.target.folder.iterdir()) == [
        "model.safetensors",
        "params.json",
        "training.csv",
        "training.jsonl",
    ]
    header, *lines = job.target.curves.read_text().splitlines()
    assert {"step", "loss"} <= set(header.split(","))
    assert len(lines) == len(job.target.training_log.read_text().splitlines())


def test_the_weights_are_published_last(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a reader that waits for the weights would find the other files missing."""
    order: list[str] = []
    original = jobs.atomic_copy
    monkeypatch.setattr(jobs, "atomic_copy", lambda source, to: (order.append(to.name), original(source, to))[1])
    launch(job)
    assert order == ["params.json", "training.jsonl", "training.csv", "model.safetensors"]


@pytest.mark.slow
def test_second_call_in_the_same_folder_waits_and_trains_nothing(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: two processes would write each other's checkpoints, or a restarted workflow would fail."""
    original, calls = loop.train, []
    second = threading.Thread(target=launch, args=(job,), daemon=True)

    def train(*arguments: Any, **settings: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            second.start()
            second.join(timeout=1)
            assert second.is_alive()
        original(*arguments, **settings)

    monkeypatch.setattr(loop, "train", train)
    launch(job)
    second.join(timeout=30)
    assert not second.is_alive()
    assert len(calls) == 1
    assert "another process is at work in work/dip-" in caplog.text


def test_failed_training_publishes_nothing(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: half a result would look like a whole one."""

    def train(spec: TrainingSpec, work: Path, **settings: Any) -> None:
        (work / "training.jsonl").write_text("{}")
        raise RuntimeError("stopped")

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(RuntimeError, match="stopped"):
        launch(job)
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (RuntimeError("full"), {"job_id": None, "terminated": False, "error": "RuntimeError: full"}),
        (SystemExit(128 + signal.SIGTERM), {"job_id": None, "terminated": True, "error": None}),
        (SystemExit(1), None),
        (KeyboardInterrupt(), None),
    ],
)
def test_why_the_last_call_ended_is_noted(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, error: BaseException, end: dict[str, Any] | None
) -> None:
    """Wrong: `dip status` would show the failure of an earlier call; or a training that was only stopped would fail."""
    folder = WorkFolder(job.work)
    folder.open(job.task)
    folder.note("end", {"job_id": None, "terminated": False, "error": "OSError: earlier"})
    before: list[Any] = []

    def train(spec: TrainingSpec, work: Path, **settings: Any) -> None:
        before.append(folder.read("end"))
        raise error

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(type(error)):
        launch(job)
    assert before == [None]
    assert folder.read("end") == end


def test_first_of_several_failures_is_the_one_noted(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the cause would be lost behind the failures of processes that waited for the one that failed."""
    folder, cause = WorkFolder(job.work), {"job_id": None, "terminated": False, "error": "OSError: the cause"}

    def train(spec: TrainingSpec, work: Path, **settings: Any) -> None:
        folder.note("end", cause)  # another process of the job
        raise RuntimeError("connection closed by peer")

    monkeypatch.setattr(loop, "train", train)
    with pytest.raises(RuntimeError, match="connection closed"):
        launch(job)
    assert folder.read("end") == cause


@pytest.mark.slow
def test_other_stages_hand_over_their_result_and_make_it_again_if_it_is_deleted(
    job: TrainingJob, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: every set of samples would lie on the disk twice, or a result that was removed would come back."""
    launch(job)
    spec = params.runs["dip"].part(SamplingSpec)
    sampling = SamplingJob.of("dip", job.target, spec, batch_size=4)
    launch(sampling)
    samples = job.target.samples.read_bytes()
    assert (sampling.work / "samples.npz").samefile(job.target.samples)
    sampling.clear()
    assert not list(sampling.work.glob("samples.*"))
    os.utime(job.target.samples)  # as Snakemake does
    with caplog.at_level("INFO"):
        launch(sampling)
    assert "samples.npz is there already" in caplog.text
    job.target.samples.unlink()
    launch(sampling)
    assert job.target.samples.read_bytes() == samples
    latency = LatencyJob.of("dip", job.target, spec)
    assert latency.work != sampling.work
    launch(latency)
    assert job.target.latency.exists()


class Killed(BaseException):
    """What a kill is to a test."""


@pytest.mark.parametrize("place", range(3))
def test_a_publication_goes_on_where_it_was_cut_off(
    job: TrainingJob, params: Params, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    """Wrong: the same command would fail for ever, or days of sampling would be done again."""
    target = job.target
    target.model.parent.mkdir(parents=True)
    target.model.write_bytes(b"weights")
    sampling = SamplingJob.of("dip", target, params.runs["dip"].part(SamplingSpec))
    sampling.work.mkdir(parents=True)
    for output in sampling.outputs:
        (sampling.work / output.name).write_text(f"content of {output.name}")
    monkeypatch.setattr(SamplingJob, "start", never)
    calls = iter(range(9))

    def link(source: Path, output: Path) -> None:
        if next(calls) == place:
            raise Killed
        atomic_link(source, output)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("dip.launch.jobs.atomic_link", link)
        launch(sampling)
    target.grid.unlink(missing_ok=True)  # as Snakemake deletes the outputs of a job that failed
    launch(sampling)
    assert [output.read_text() for output in sampling.outputs] == [f"content of {o.name}" for o in sampling.outputs]
    sampling.clear()
    assert not sampling.finished()


def test_debug_runs_in_this_process_and_does_not_wait(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a debugger would have no terminal, or would wait for a queue."""
    processes: list[int] = []
    original = loop.train
    monkeypatch.setattr(loop, "train", lambda *a, **k: (processes.append(os.getpid()), original(*a, **k)))
    launch(job, Launcher("debug"))
    assert processes == [os.getpid()]
    assert job.target.model.exists()


def test_batch_that_does_not_divide_is_refused_first(job: TrainingJob) -> None:
    """Wrong: the job would wait in the queue for hours only to fail."""
    with pytest.raises(ValueError, match=r"--processes: training\.batch_size is 4, which is not divisible by 3"):
        launch(job, Launcher(processes=3))
    Path("jobs.yaml").write_text("all: {timeout_min: 9, nodes: 3}")
    with pytest.raises(ValueError, match=r"jobs\.yaml: train\.nodes x train\.tasks_per_node: .* divisible by 3"):
        launch(job, Launcher("slurm", jobs=Path("jobs.yaml")))
    assert not job.work.exists()


def test_number_of_processes_that_a_job_does_not_have_is_refused(job: TrainingJob) -> None:
    """Wrong: `--launcher slurm --processes 4` would train in one process for days."""
    Path("jobs.yaml").write_text("all: {timeout_min: 9, tasks_per_node: 2}")
    with pytest.raises(ValueError, match=r"^--processes is 4, and jobs\.yaml: train\.nodes x .*_per_node is 2: a job"):
        launch(job, Launcher("slurm", processes=4, jobs=Path("jobs.yaml")))
    assert not job.work.exists()


def test_one_of_several_processes_does_not_launch(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the first would hold the folder and wait for the others, which would wait for the folder."""
    monkeypatch.setattr(loop, "train", never)
    place = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError,
        match=r"2 processes of `dip train`; call it once, .* --processes N .* several machines: --launcher slurm\)$",
    ):
        launch(job)
    assert not job.work.exists()


def test_portion_that_does_not_divide_is_refused_by_its_own_name(job: TrainingJob) -> None:
    """Wrong: the message would send to --processes, whose number is right."""
    job = replace(job, settings={"micro_batch": 3})
    with pytest.raises(ValueError, match=r"^--micro-batch: each process has 4 images of a batch, .* divides 4$"):
        launch(job)


def test_folder_that_cannot_be_written_to_is_named_first(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: it would show after days of training."""
    monkeypatch.setattr(loop, "train", never)
    Path("results").write_text("a file")
    with pytest.raises(NotADirectoryError, match=r"results is a file; results/demo/runs/dip must be a folder"):
        launch(job)
    Path("results").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "work")
    Path("work").mkdir()
    with pytest.raises(PermissionError, match=r"work cannot be written to"):
        launch(job)


def test_local_work_is_refused_while_a_job_may_be_at_it(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wrong: on a machine without SLURM, with the same disk, a second training would start beside the cluster's."""
    job.work.mkdir(parents=True)
    (job.work / "job.json").write_text('{"job_id": "7"}')
    monkeypatch.setattr(slurm, "installed", lambda: False)
    monkeypatch.setattr(loop, "train", never)
    with pytest.raises(ValueError, match=r"job\.json: SLURM job 7 may be at work in this folder"):
        launch(job)
    (job.work / "job.json").write_text('{"job_id": "7", "state": "FAILED"}')
    with pytest.raises(AssertionError, match="trained again"):
        launch(job)
