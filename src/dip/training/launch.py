"""`dip train`: where a training runs, and how its result reaches the run folder.

The call takes a lock on the training's work folder, so that two calls never train in one folder; publishes the
result if the training is done; follows its SLURM job if one is queued or running; else starts the training, here
or as a job. Whatever ends the call, the same call goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dip.files import atomic_copy, write_json
from dip.paths import RunFolder, Store, work_folder
from dip.schema import MilestoneSpec, TrainingSpec
from dip.training.loop import milestone_path, publish, train

_log = logging.getLogger(__name__)
_POLL_SECONDS = 5.0
_LAST_LINES = 30
_OVER = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


class JobFailedError(RuntimeError):
    """A SLURM job ended without a result; the message has the end of its log."""


def launch(
    run: str,
    spec: TrainingSpec,
    target: RunFolder,
    *,
    launcher: str = "local",
    save_seconds: float = 600,
    slurm: dict[str, Any] | None = None,
) -> None:
    """Train a run and publish its weights, or go on with what an earlier call began.

    Args:
        run: Name of the run.
        spec: Data, model and optimisation.
        target: Where the result goes.
        launcher: "local" (this process) or "slurm".
        save_seconds: Seconds between two checkpoints.
        slurm: submitit's parameters of the job, `slurm_partition` and the like.

    Raises:
        ValueError: The dataset is not prepared.
        JobFailedError: The SLURM job ended without a result.
    """
    work = _work(run, spec)
    with _lock(work):
        if not (work / "model.safetensors").exists():
            if launcher == "slurm":
                _train_on_slurm(run, spec, work, save_seconds, slurm or {})
            else:
                train(spec, work, save_seconds=save_seconds)
        publish(work, target)


def publish_milestone(spec: MilestoneSpec, target: RunFolder) -> None:
    """Copy the weights that a training kept at an epoch to the folder of the run that names them.

    Raises:
        ValueError: The run names no epoch of another, the training kept none, or its work folder is gone.
    """
    if spec.checkpoint is None or spec.checkpoint.epoch is None:
        raise ValueError(f"{target.folder}: the run takes no milestone (no checkpoint.epoch in params.yaml)")
    work = _work(spec.checkpoint.run, spec.part(TrainingSpec))
    source = milestone_path(work, spec.checkpoint.epoch)
    if not source.exists():
        raise ValueError(
            f"{source}: the weights of epoch {spec.checkpoint.epoch} are gone; train '{spec.checkpoint.run}' again "
            "(remove its model.safetensors and its folder in work/)"
        )
    atomic_copy(source, target.model)


class TrainingJob:
    """What submitit pickles and runs on the node; `checkpoint` requeues it after preemption or a time limit."""

    def __init__(self, spec: str, work: str, save_seconds: float) -> None:
        self.spec, self.work, self.save_seconds = spec, work, save_seconds

    def __call__(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        train(TrainingSpec.parse(self.spec), Path(self.work), save_seconds=self.save_seconds)

    def checkpoint(self) -> Any:
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _work(run: str, spec: TrainingSpec) -> Path:
    manifest = Store.of(spec.dataset_name).manifest
    try:
        content = manifest.read_bytes()
    except OSError:
        raise ValueError(f"{manifest} is missing; prepare it with `dip prepare {spec.dataset_name}`") from None
    return work_folder(run, spec.canonical(), content)


@contextlib.contextmanager
def _lock(work: Path) -> Iterator[None]:
    """Hold the work folder for this process; the lock goes with the process, however it ends.

    A second process waits: the first may be the training of a workflow that was killed and started again, and what
    it makes is what the second would make.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log.warning("another process trains in %s; waiting for it to end", work)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _train_on_slurm(run: str, spec: TrainingSpec, work: Path, save_seconds: float, slurm: dict[str, Any]) -> None:
    import submitit

    record, logs, name = work / "job.json", work / "slurm", f"dip-{work.name}"
    job_id = json.loads(record.read_text())["job_id"] if record.exists() else None
    if job_id is None or _state(job_id) is None:
        job_id = _queued(name)
    if job_id is None:
        executor = submitit.AutoExecutor(folder=logs, cluster="slurm")
        executor.update_parameters(name=name, **slurm)
        with submitit.helpers.clean_env():
            job = executor.submit(TrainingJob(spec.canonical(), str(work), save_seconds))
        job_id = job.job_id
        _log.info("submitted SLURM job %s for %s; its log is in %s", job_id, run, logs)
    else:
        _log.info("following SLURM job %s of %s", job_id, run)
    write_json(record, {"job_id": job_id})
    while _state(job_id) is not None:
        time.sleep(_POLL_SECONDS)
    # The file system of the node may show the result here a little later.
    for _ in range(12):
        if (work / "model.safetensors").exists():
            return
        time.sleep(_POLL_SECONDS / 5)
    raise JobFailedError(f"SLURM job {job_id} of {run} ended without a result.\n{_end_of_log(logs, job_id)}")


def _queued(name: str) -> str | None:
    """A job that was submitted from here and that nobody noted, because its launcher died at that moment."""
    answer = _squeue("--me", f"--name={name}", "--format=%i %Z")
    jobs = (line.split(maxsplit=1) for line in (answer or "").splitlines())
    return next((job_id for job_id, folder in jobs if Path(folder) == Path.cwd()), None)


def _state(job_id: str) -> str | None:
    """State of a job that is queued or running, None if it is gone."""
    state = _squeue("--states=all", "--format=%T", f"--jobs={job_id}")
    return None if not state or state in _OVER else state


def _squeue(*options: str) -> str | None:
    """What squeue says, None if it knows no such job; an unreachable scheduler is waited for, not taken for "gone"."""
    while True:
        try:
            result = subprocess.run(["squeue", "--noheader", *options], capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            raise ValueError("squeue is not installed here; use --profile local, or run on a login node") from None
        except subprocess.TimeoutExpired:
            _log.warning("squeue does not answer within a minute; asking again")
            continue
        if result.returncode == 0:
            return result.stdout.strip()
        if "Invalid job id" in result.stderr:
            return None
        _log.warning("squeue does not answer (%s); asking again", result.stderr.strip())
        time.sleep(_POLL_SECONDS)


def _end_of_log(logs: Path, job_id: str) -> str:
    lines = []
    for path in sorted(logs.glob(f"{job_id}_*_log.err")):
        content = path.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        lines += [f"--- end of {path}", *content]
    return "\n".join(lines) or f"It left no log in {logs}."
