"""SLURM: submitting, looking and cancelling. The only import of submitit.

Nothing here needs accounting (slurmdbd): what is known of a job comes from squeue and from files. A scheduler that
does not answer is asked again; only a scheduler that answers can say that a job is gone.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dip.files import atomic_write
from dip.launch.folder import WorkFolder
from dip.launch.settings import JobSettings
from dip.progress import describe

if TYPE_CHECKING:
    from dip.launch.jobs import Job

_log = logging.getLogger(__name__)
_ASK_AGAIN_SECONDS = 5.0
_LAST_LINES = 30
_SHOWN_TASKS = 3
LOST = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "TIMEOUT")  # how a job ends that did nothing wrong
OVER = (*LOST, "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED")
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")  # the last three until released
# What sbatch says when it refuses a job, and the keys to look at.
_REFUSALS = {
    "accounting/qos policy": ("qos", "account", "nodes", "gpus_per_node", "timeout_min"),
    "account": ("account", "partition"),
    "partition": ("partition",),
    "qos": ("qos",),
    "feature": ("constraint",),
    "node configuration is not available": ("gpus_per_node", "nodes", "tasks_per_node", "cpus_per_task", "mem_gb"),
    "generic resource": ("gpus_per_node",),
    "gres": ("gpus_per_node",),
    "time limit": ("timeout_min",),
    "memory": ("mem_gb",),
    "processors": ("cpus_per_task", "tasks_per_node"),
    "cpu count": ("cpus_per_task", "tasks_per_node"),
    "node count": ("nodes",),
    "reservation": ("extra",),
    "license": ("extra",),
    "unrecognized option": ("extra",),
    "invalid option": ("extra",),
}
# Why a job waits, where no waiting helps, and the keys to look at (https://slurm.schedmd.com/job_reason_codes.html).
# squeue tells some by a code and others by a sentence.
_NEVER = {
    "AccountNotAllowed": ("account", "partition"),
    "account not permitted": ("account", "partition"),
    "InvalidAccount": ("account",),
    "QOSNotAllowed": ("qos", "partition"),
    "QOS not permitted": ("qos", "partition"),
    "InvalidQOS": ("qos",),
    "group not permitted": ("partition",),
    "BadConstraints": ("constraint",),
    "MaxMemPerLimit": ("mem_gb",),
    "PartitionNodeLimit": ("nodes",),
    "PartitionTimeLimit": ("timeout_min",),
    "was deleted": ("extra",),  # a reservation; one that has ended is deleted
}
# What one job may have under an account (its associations) or QOS, and the keys of what the reason names. Limits of
# all jobs of a user, account or QOS together are not among them: the end of another job may be enough.
_LIMIT_OF_ONE_JOB = re.compile(r"\b(Assoc|QOS)(Max\w+Per(Job|Node)|Min[A-Z])")
_LIMITED = {
    "Billing": ("gpus_per_node", "cpus_per_task", "mem_gb"),
    "Cpu": ("cpus_per_task", "tasks_per_node", "nodes"),
    "GRES": ("gpus_per_node", "nodes"),
    "Mem": ("mem_gb", "nodes"),
    "Minutes": ("timeout_min",),
    "NodeM": ("nodes",),
    "NodePerJob": ("nodes",),
    "QOSMinNode": ("nodes",),
    "Wall": ("timeout_min",),
}
# How a job ends that asked for too little, and the keys to look at.
_TOO_LITTLE = {"OUT_OF_MEMORY": ("mem_gb",), "TIMEOUT": ("timeout_min", "signal_delay_s")}
_UNREACHABLE = ("unable to contact", "socket timed out", "connection refused", "zero bytes", "protocol authentication")
# Also what sbatch says, of as many jobs as the scheduler takes at all (MaxJobCount), or of this user or account.
_FULL = ("resource temporarily unavailable", "submitjob")


class UnreachableError(RuntimeError):
    """The scheduler does not answer."""


@dataclass(frozen=True)
class Seen:
    """A job as squeue shows it."""

    job_id: str
    name: str
    state: str
    reason: str
    nodes: str

    @property
    def over(self) -> bool:
        return self.state in OVER

    @property
    def waits(self) -> bool:
        return self.state in _WAITING


def job_name(work: Path) -> str:
    """Name of the jobs of a work folder: no other folder of this user has it."""
    return f"dip-{work.name}-{hashlib.sha256(str(work.resolve()).encode()).hexdigest()[:8]}"


def logs_of(work: Path) -> Path:
    """Folder of the jobs' logs."""
    return work / "slurm"


def has_started(work: Path, job_id: str) -> bool:
    """Whether a job has been running before, so that one in the queue was put back there."""
    return any(logs_of(work).glob(f"{job_id}_*_log.err"))


def find(work: Path, recorded: str | None) -> Seen | None:
    """The job of a work folder that is queued or running, None if there is none.

    Args:
        work: The folder.
        recorded: Job that the folder's record names. A job that was submitted when its launcher died, before it
            could be recorded, is found by its name.
    """
    if recorded is not None and (seen := look(work, recorded)) is not None and not seen.over:
        return seen
    return next((seen for seen in ask("--me", f"--name={job_name(work)}") if not seen.over), None)


def look(work: Path, job_id: str) -> Seen | None:
    """A job of a work folder, None if SLURM has forgotten it, or gave its number to another."""
    found = ask(f"--jobs={job_id}", "--states=all")
    return next((seen for seen in found if seen.job_id == job_id and seen.name == job_name(work)), None)


def installed() -> bool:
    """Whether this machine has SLURM's commands."""
    return shutil.which("squeue") is not None


def ask(*options: str, patient: bool = True) -> list[Seen]:
    """What squeue lists.

    Args:
        options: Options of squeue.
        patient: Wait for a scheduler that does not answer.

    Raises:
        ValueError: squeue is not installed.
        UnreachableError: The scheduler does not answer.
    """
    command, silent = ["squeue", "--noheader", "--format=%i|%j|%T|%r|%N", *options], False
    while True:
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=60)
            problem = result.stderr.strip().splitlines()[-1:] or ["no message"]
        except FileNotFoundError:
            raise ValueError("squeue is not installed here; run where the cluster's commands are") from None
        except subprocess.TimeoutExpired:
            result, problem = None, ["no answer within a minute"]
        if result is not None and result.returncode == 0:
            break
        if result is not None and "Invalid job id" in result.stderr:
            return []
        if not patient:
            raise UnreachableError(f"SLURM does not answer ({problem[0]})")
        if not silent:
            _log.warning("squeue: %s; asking again until SLURM answers", problem[0])
            silent = True
        time.sleep(_ASK_AGAIN_SECONDS)
    if silent:
        _log.info("SLURM answers again")
    rows = (line.split("|") for line in result.stdout.splitlines())
    return [Seen(*row) for row in rows if len(row) == 5]


def submit(job: Job, settings: JobSettings, source: Path) -> str:
    """Put a job into the queue; a scheduler that cannot be reached, or has too many jobs, is tried again.

    Args:
        job: What to run.
        settings: What to ask for.
        source: The file that the settings are from, for messages.

    Returns:
        The job's number.

    Raises:
        ValueError: SLURM refuses the job; its message and the keys to look at are named.
    """
    import submitit

    if shutil.which("sbatch") is None:
        raise ValueError("sbatch is not installed here; use --launcher local, or run on a login node")
    # A warning that comes before Python can handle it must not kill the job.
    python = f"""sh -c 'trap "" USR2; exec "$0" "$@"' {shlex.quote(sys.executable)}"""
    executor = submitit.SlurmExecutor(logs_of(job.work), max_num_timeout=_max_timeouts(job, settings), python=python)
    executor.update_parameters(**_parameters(job, settings))
    told = ""
    while True:
        try:
            with submitit.helpers.clean_env(), contextlib.redirect_stderr(io.StringIO()):
                return str(executor.submit(job).job_id)
        except submitit.core.utils.FailedJobError as error:
            said = "; ".join(re.findall(r"sbatch: (?:error: )?(.*)", str(error))) or str(error)
        if not any(words in said.lower() for words in (*_UNREACHABLE, *_FULL)):
            refused = next((keys for words, keys in _REFUSALS.items() if words in said.lower()), ())
            keys = _beyond_limits(said) or refused
            raise ValueError(f"SLURM refuses the job: {said}. {_advice(job, source, keys)}")
        if said != told:
            _log.warning("sbatch: %s; trying again", said)
            told = said
        time.sleep(_ASK_AGAIN_SECONDS)
        # It may have arrived all the same.
        if (found := find(job.work, None)) is not None:
            return found.job_id


def hand_over(job: Job, job_id: str, settings: JobSettings) -> None:
    """See that what a job has to run lies where it looks for it for a minute, and then fails.

    submitit puts it there when sbatch has told the job's number. Where sbatch gave up on a scheduler that took the job
    all the same, or the launcher died before it was told, nobody has.
    """
    import submitit

    path = submitit.core.utils.JobPaths(logs_of(job.work), job_id).submitted_pickle
    if path.exists():
        return
    handed_over = submitit.core.utils.DelayedSubmission(job)
    handed_over.set_timeout(settings.timeout_min, _max_timeouts(job, settings))
    with atomic_write(path, "wb") as file:
        pickle.dump(handed_over, file)


def _max_timeouts(job: Job, settings: JobSettings) -> int:
    """How often a job is put back after its time limit: once what starts anew, in case a node was slow."""
    return settings.max_timeouts if job.resumes else min(settings.max_timeouts, 1)


def _parameters(job: Job, settings: JobSettings) -> dict[str, Any]:
    """The settings in submitit's words."""
    threads = [f"export {name}={settings.cpus_per_task}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    return {
        "job_name": job_name(job.work),
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "nodes": settings.nodes,
        "gpus_per_node": settings.gpus_per_node or None,
        "ntasks_per_node": settings.tasks_per_node,
        "cpus_per_task": settings.cpus_per_task,
        "mem": f"{round(settings.mem_gb * 1024)}M" if settings.mem_gb else None,
        "time": settings.timeout_min,
        "signal_delay_s": settings.signal_delay_s,
        "dependency": "singleton",  # SLURM itself never runs two jobs of one name
        "wckey": None,
        # Snakemake sets the threads of its own job, which are not those of this one.
        "setup": [*threads, *settings.setup],
        # Since SLURM 22.05 srun does not take over --cpus-per-task; without the other flag a process that dies
        # leaves the rest waiting for it.
        "srun_args": [f"--cpus-per-task={settings.cpus_per_task}", "--kill-on-bad-exit=1"],
        "additional_parameters": {"requeue": True, **settings.extra},
    }


def resubmission(job: Job) -> Any:
    """What submitit runs when a preempted job starts again."""
    import submitit

    return submitit.helpers.DelayedSubmission(job)


def follow(job: Job, job_id: str, settings: JobSettings, source: Path) -> str:
    """Wait until a job is over, telling when its state changes.

    Returns:
        Its last state as SLURM names it, "UNKNOWN" if SLURM had forgotten it.

    Raises:
        ValueError: The job can never start as it is; it has been cancelled.
    """
    told, last = "", time.monotonic()
    while (seen := look(job.work, job_id)) is not None and not seen.over:
        if seen.waits and (keys := _beyond_limits(seen.reason)):
            cancel(job_id)
            raise ValueError(f"SLURM would never start the job: {seen.reason}. {_advice(job, source, keys)}")
        text = f"{seen.state.lower()} ({seen.reason if seen.waits else seen.nodes})"
        if text != told:
            _log.info("SLURM job %s of %s: %s", job_id, job.run, text)
            told = text
        if time.monotonic() - last >= 60 and (record := WorkFolder(job.work).read("progress")):
            _log.info("%s of %s: %s", job.stage, job.run, describe(record))
            last = time.monotonic()
        time.sleep(settings.poll_seconds)
    return seen.state if seen is not None else "UNKNOWN"


def cancel(job_id: str) -> None:
    """End a job.

    Raises:
        ValueError: SLURM does not do it; its message is in it.
    """
    try:
        result = subprocess.run(["scancel", job_id], capture_output=True, text=True, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"scancel {job_id}: {error}") from None
    if result.returncode != 0 and "Invalid job id" not in result.stderr:
        raise ValueError(f"scancel {job_id}: {result.stderr.strip()}")


def advice_on(state: str, job: Job, source: Path) -> str:
    """A sentence on what to change after an end for want of something; nothing after others."""
    return f" {_advice(job, source, keys)}" if (keys := _TOO_LITTLE.get(state)) else ""


def end_of_log(work: Path, job_id: str) -> str:
    """The last lines of what a job's processes wrote, those first that tell of an error."""
    contents = {path: path.read_text(errors="replace") for path in sorted(logs_of(work).glob(f"{job_id}_*_log.err"))}
    chosen = sorted(contents, key=lambda path: "Traceback" not in contents[path])[:_SHOWN_TASKS]
    lines = []
    for path in chosen:
        lines += [f"--- end of {path}", *contents[path].splitlines()[-_LAST_LINES:]]
    if not lines and not logs_of(work).exists():
        return f"{logs_of(work)}, where it would have written, was removed; the same command starts anew."
    return "\n".join(lines) or f"It left no log in {logs_of(work)}."


def _beyond_limits(reason: str) -> tuple[str, ...]:
    """The keys to look at where a job waits, or is refused, for a reason that stays; none where it may pass."""
    keys = next((keys for words, keys in _NEVER.items() if words in reason), ())
    if limit := _LIMIT_OF_ONE_JOB.search(reason):
        named = [key for words, keys in _LIMITED.items() if words in reason for key in keys]
        keys = (*dict.fromkeys(named), "qos" if limit[1] == "QOS" else "account")
    return keys


def _advice(job: Job, source: Path, keys: tuple[str, ...]) -> str:
    names = ", ".join(f"{job.stage}.{key}" for key in keys)
    return f"See {names} in {source}" if names else f"See {source}"
