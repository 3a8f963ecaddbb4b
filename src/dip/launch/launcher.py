"""Start a stage, or go on with what an earlier call began, and publish its result.

The call takes a lock on the stage's work folder, so that two calls never work in one folder; publishes the result if
it is there; follows its SLURM job if one is queued or running; else starts the work, here or as a job. Whatever ends
the call, the same call goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from dip.launch import slurm
from dip.launch.folder import WorkFolder, name_of
from dip.launch.jobs import Job, JobFailedError
from dip.launch.processes import work_in_processes
from dip.launch.settings import JobSettings, load_settings
from dip.paths import JOBS
from dip.training.signals import listened_to

_log = logging.getLogger(__name__)
_APPEARS_SECONDS = 15  # the file system of a node may show its files here a little later


@dataclass(frozen=True)
class Launcher:
    """Where the work runs.

    Attributes:
        kind: "local": in this process, or in several of this machine; "slurm": as a job; "debug": in this process,
            without waiting for anybody and with a traceback for every error.
        processes: How many, with "local".
        jobs: What to ask the cluster for, with "slurm".
    """

    kind: str = "local"
    processes: int = 1
    jobs: Path = JOBS


def launch(job: Job, launcher: Launcher | None = None) -> None:
    """Have a stage's result in the run's folder.

    Args:
        job: The stage.
        launcher: Where it runs, in this process if not given.

    Raises:
        ValueError: The settings of the cluster, or what they ask for, cannot be; the folder is of another task; or this
            is one of several processes, which would wait for each other.
        OSError: The work folder or the run's folder cannot be written to.
        JobFailedError: The job ended without a result.
        SystemExit: The work here was asked to end, and saved; the same call goes on.
    """
    launcher = launcher or Launcher()
    settings = load_settings(launcher.jobs, job.stage) if launcher.kind == "slurm" else None
    if settings is not None:
        key = f"{launcher.jobs}: {job.stage}.nodes x {job.stage}.tasks_per_node"
        job.check_processes(settings.num_tasks, key)
        if launcher.processes not in (1, settings.num_tasks):
            raise ValueError(f"--processes is {launcher.processes}, and {key} is {settings.num_tasks}: a job has those")
    else:
        job.check_processes(launcher.processes, "--processes")
    if launcher.kind == "local" and launcher.processes == 1:
        _check_alone(job)
    for path in (job.work, job.target.folder):
        _check_writable(path)
    folder = WorkFolder(job.work)
    folder.open(job.task)
    if launcher.kind == "debug":
        if not job.finished():
            _check_no_job(job, folder)
            job(patience=1)
        _publish(job, folder)
        return
    with folder.launching():
        if _published(job, folder):
            _log.info("%s is there already, made with the same parameters", job.outputs[-1])
            return
        if not job.finished():
            _work(job, folder, launcher, settings)
        _publish(job, folder)


def _check_alone(job: Job) -> None:
    """Refuse to launch in each of several processes: the one that holds the lock would wait for the others' work."""
    from dip.training.distributed import Place

    if (size := Place.of(os.environ).size) > 1:
        raise ValueError(
            f"torchrun or srun started {size} processes of `dip {job.stage}`; call it once, and it starts them itself "
            "(train, sample: --processes N on this machine; on several machines: --launcher slurm)"
        )


def _work(job: Job, folder: WorkFolder, launcher: Launcher, settings: JobSettings | None) -> None:
    if settings is not None:
        _work_on_slurm(job, folder, settings, launcher.jobs)
        return
    _check_no_job(job, folder)
    _wait_for_worker(folder)
    if launcher.processes > 1:
        work_in_processes(job, folder, launcher.processes)
    else:
        job()


def _wait_for_worker(folder: WorkFolder) -> None:
    """Let a process end that outlived its launcher; what it does need not be done again."""
    if worker := folder.worker():
        _log.warning("%s is at work in %s; waiting for it to end", name_of(worker), folder.path)
        while folder.worker():
            time.sleep(1)


def _check_no_job(job: Job, folder: WorkFolder) -> None:
    """Refuse to work here while the cluster does."""
    recorded = folder.read("job")
    if recorded is None or recorded.get("state") in slurm.OVER:
        return
    if not slurm.installed():
        raise ValueError(
            f"{job.work / 'job.json'}: SLURM job {recorded['job_id']} may be at work in this folder, and squeue is not "
            "installed here to ask; run where it is, or remove the file if the job is gone"
        )
    if found := slurm.find(job.work, recorded["job_id"]):
        raise ValueError(
            f"SLURM job {found.job_id} is at work in {job.work}; follow it with --launcher slurm, or end it with "
            f"`dip cancel {job.run}`"
        )


def _work_on_slurm(job: Job, folder: WorkFolder, settings: JobSettings, source: Path) -> None:
    recorded, logs = folder.read("job") or {}, slurm.logs_of(job.work)
    found = slurm.find(job.work, recorded.get("job_id"))
    if found is None:
        _wait_for_worker(folder)
        if job.finished():
            return
    for resubmissions in range(settings.max_resubmissions + 1):
        if found is None:
            job_id = slurm.submit(job, settings, source)
            _log.info("submitted SLURM job %s: %s of %s; its log is in %s", job_id, job.stage, job.run, logs)
        else:
            job_id = found.job_id
            _log.info("following SLURM job %s: %s of %s", job_id, job.stage, job.run)
        folder.note("job", {"job_id": job_id})
        slurm.hand_over(job, job_id, settings)
        try:
            with _ended_as_by_ctrl_c():
                state = slurm.follow(job, job_id, settings, source)
        except (KeyboardInterrupt, SystemExit):
            _log.info("SLURM job %s goes on without this process; `dip cancel %s` ends it", job_id, job.run)
            raise
        folder.note("job", {"job_id": job_id, "state": state})
        if _appears(job, _APPEARS_SECONDS if state in ("COMPLETED", "UNKNOWN") else 0):
            return
        end = folder.read("end") or {}
        # SIGTERM without a cancellation: a preemption, on clusters that announce it so.
        terminated = end.get("terminated") and end.get("job_id") == job_id and state != "CANCELLED"
        if not (state in slurm.LOST or terminated) or resubmissions == settings.max_resubmissions:
            break
        _log.warning("SLURM job %s was lost (%s); %s; submitting it again", job_id, state, job.kept())
        found = None
    if state == "CANCELLED":
        raise JobFailedError(f"SLURM job {job_id} of {job.run} was cancelled; the same command goes on from its state")
    timed_out = "timed-out" in str(end.get("error")) and end.get("job_id") == job_id  # in submitit's words
    how = f"({state}).{slurm.advice_on('TIMEOUT' if timed_out else state, job, source)}"
    raise JobFailedError(
        f"SLURM job {job_id} of {job.run} ended without a result {how}\n{slurm.end_of_log(job.work, job_id)}"
    )


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Have SIGTERM, as Snakemake hands it on, and SIGHUP raise SystemExit instead of ending this process in silence."""

    def end(number: int, _: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in listened_to((signal.SIGTERM, signal.SIGHUP))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _appears(job: Job, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not job.finished():
        if time.monotonic() >= end:
            return False
        time.sleep(0.5)
    return True


def _publish(job: Job, folder: WorkFolder) -> None:
    job.publish()
    folder.note("published", {str(output): _stamp(output) for output in job.outputs})


def _published(job: Job, folder: WorkFolder) -> bool:
    """Whether the run's folder has what this work folder published last, as it was then."""
    stamps = folder.read("published") or {}
    return all(output.exists() and stamps.get(str(output)) == _stamp(output) for output in job.outputs)


def _stamp(path: Path) -> list[int]:
    """What another file of that name differs in. Not the time, which Snakemake sets anew."""
    found = path.stat()
    return [found.st_size, found.st_ino]


def _check_writable(folder: Path) -> None:
    """Find out now what would else show after days of work."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file; {folder} must be a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} cannot be written to, and {folder} must be")
