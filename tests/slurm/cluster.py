"""What the tests do to jobs, and what they see of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from project import Project

# Longer than any test: jobs of it are ended by the test.
ENDLESS = "training: {base: tiny, epochs: 100000, log_every: 50}"
# Long enough to be interrupted a few times, short enough to be waited for.
LONG = "training: {base: tiny, epochs: 400, log_every: 7}"
# Long enough to be under way when its launcher is killed.
SHORT = "training: {base: tiny, epochs: 150, log_every: 7}"


def squeue(*options: str) -> list[str]:
    """The lines of squeue; none while the scheduler does not answer."""
    result = subprocess.run(["squeue", "--noheader", *options], capture_output=True, text=True, timeout=60)
    return result.stdout.splitlines() if result.returncode == 0 else []


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90) -> None:
    """Wait until something happens; it must."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not happen: {what}"
        time.sleep(0.1)


def processes(variable: str) -> list[Path]:
    """Those in /proc that have a variable, as name=value, in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if variable.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(process)
    return found


def lose_node(node: str) -> None:
    """Have SLURM take a node for lost, and its processes vanish, as they do with a machine."""
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"], check=True)
    for process in processes(f"SLURMD_NODENAME={node}"):
        with contextlib.suppress(OSError):
            parent = Path("/proc", (process / "stat").read_text().rpartition(")")[2].split()[1])
            if (parent / "cmdline").read_bytes().startswith(b"slurmstepd"):
                os.kill(int(parent.name), signal.SIGKILL)
            os.kill(int(process.name), signal.SIGKILL)


@dataclass
class Cluster:
    """A project whose run `dit` is trained by jobs."""

    project: Project
    launchers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def settings(self, stages: dict[str, Any] | None = None, **settings: Any) -> None:
        """Write what jobs ask for, and what those of single stages do."""
        small = {"partition": "gpu", "gpus_per_node": 1, "mem_gb": 1, "timeout_min": 20, "poll_seconds": 0.5}
        (self.project.folder / "jobs.yaml").write_text(yaml.safe_dump({"all": {**small, **settings}, **(stages or {})}))

    def train_for(self, training: str) -> None:
        """Change the training of the run."""
        self.project.edit("model: {base: dit}\n    training: {base: tiny}", f"model: {{base: dit}}\n    {training}")

    @property
    def command(self) -> list[str]:
        return ["dip", "train", "dit", "--launcher", "slurm", "--slurm", "jobs.yaml", "--save-seconds", "0"]

    def train(self) -> subprocess.CompletedProcess[str]:
        """Have the run trained, and wait for it."""
        return self.project.command(*self.command)

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a launcher in a process group of its own; its output goes to `output`."""
        with (self.project.folder / "output.log").open("ab") as file:
            process = subprocess.Popen(
                command or self.command,
                cwd=self.project.folder,
                env=self.project.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.launchers.append(process)
        return process

    @property
    def output(self) -> str:
        """What the launchers that were started have said."""
        return (self.project.folder / "output.log").read_text()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """`kill -9` of a launcher and all that it started here."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @property
    def work(self) -> Path:
        """Work folder of the training."""
        (path,) = (path for path in self.project.folder.glob("work/dit-*") if path.name.count("-") == 1)
        return path

    def jobs(self) -> list[str]:
        """Numbers of all jobs that were ever submitted: submitit keeps a file of each."""
        numbers = {path.name.split("_")[0] for path in self.project.folder.glob("work/*/slurm/*_submitted.pkl")}
        return sorted(numbers, key=int)

    def job(self) -> str:
        """The only job so far."""
        wait_for(lambda: list(self.project.folder.glob("work/*/job.json")), "a job is recorded")
        (job,) = self.jobs()
        return job

    def state(self, job: str) -> str:
        """What SLURM calls the state of a job."""
        return "".join(squeue("--states=all", "--format=%T", f"--jobs={job}"))

    def saved_step(self) -> int:
        """Step of the newest checkpoint."""
        paths = self.project.folder.glob("work/dit-*/state-*.json")
        return max((int(path.stem.rpartition("-")[2]) for path in paths), default=0)

    def wait_for_checkpoint(self, after: int = 0) -> int:
        """Wait for a checkpoint of a later step."""
        wait_for(lambda: self.saved_step() > after, f"a checkpoint after step {after}")
        return self.saved_step()

    def wait_for_queue(self, job: str) -> None:
        """Wait until a job has been put back into the queue, then spare it the two minutes' pause.

        Not before its processes are gone, which the pause is for: an srun that is left ends the new step of its number.
        """
        wait_for(lambda: self.state(job) == "PENDING", f"job {job} is in the queue again")
        wait_for(lambda: not processes(f"SLURM_JOB_ID={job}"), f"the processes of job {job} end")
        subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=True)

    def log(self, job: str) -> str:
        """What the first process of a job wrote."""
        return (self.work / "slurm" / f"{job}_0_log.err").read_text()

    def status(self) -> dict[str, Any]:
        """What `dip status` says of the training."""
        result = self.project.command("dip", "status", "--json")
        assert result.returncode == 0, result.stdout
        return next(row for row in json.loads(result.stdout) if (row["run"], row["stage"]) == ("dit", "train"))
