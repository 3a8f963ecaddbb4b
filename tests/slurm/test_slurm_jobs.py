"""`dip train --launcher slurm` against a real SLURM: `tests/slurm/up.sh` starts one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from project import Project


def _slurm_answers() -> bool:
    if shutil.which("squeue") is None:
        return False
    try:
        return subprocess.run(["squeue", "--noheader"], capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not _slurm_answers(), reason="no SLURM is running here; see tests/slurm/up.sh"),
]

JOB = {"slurm_partition": "gpu", "gpus_per_node": 1, "cpus_per_task": 1, "mem_gb": 1, "timeout_min": 20}
LONG = "training: {base: tiny, epochs: 600, log_every: 5}"


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.2)


def jobs_of(project: Project) -> list[str]:
    """Ids of all jobs that were ever submitted from a project: submitit keeps a file of each."""
    return sorted({path.name.split("_")[0] for path in project.folder.glob("work/*/slurm/*_submitted.pkl")})


def state(job: str) -> str:
    command = ["squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()


@pytest.fixture
def prepared(project: Project) -> Iterator[Project]:
    """A project with its data, whose jobs are cancelled at the end."""
    result = project.command("dip", "prepare", "photos16")
    assert result.returncode == 0, result.stdout
    yield project
    for job in jobs_of(project):
        subprocess.run(["scancel", "--quiet", job], check=False)


def train(project: Project) -> list[str]:
    return ["dip", "train", "dit", "--launcher", "slurm", "--save-seconds", "0", "--slurm", json.dumps(JOB)]


def start(project: Project, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            train(project),
            cwd=project.folder,
            env=project.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def test_a_training_runs_as_a_job_and_is_published(prepared: Project) -> None:
    """The weights come from the node through the work folder to the run's folder; a second call submits nothing."""
    result = prepared.command(*train(prepared))
    assert result.returncode == 0, result.stdout
    run = prepared.folder / "results/demo/runs/dit"
    assert {path.name for path in run.iterdir()} == {"model.safetensors", "params.json", "training.jsonl"}
    assert json.loads((run / "params.json").read_text())["finished_step"] == 4
    (job,) = jobs_of(prepared)
    assert f"submitted SLURM job {job}" in result.stdout
    assert prepared.command(*train(prepared)).returncode == 0
    assert jobs_of(prepared) == [job]


def test_a_killed_launcher_finds_its_job_again(prepared: Project, tmp_path: Path) -> None:
    """A second job in the same work folder would overwrite the first one's state."""
    prepared.edit("model: {base: dit}\n    training: {base: tiny}", f"model: {{base: dit}}\n    {LONG}")
    process = start(prepared, tmp_path / "log")
    try:
        wait_for(lambda: list(prepared.folder.glob("work/dit-*/job.json")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (job,) = jobs_of(prepared)
    assert state(job) in ("PENDING", "RUNNING", "CONFIGURING")
    result = prepared.command(*train(prepared))
    assert result.returncode == 0, result.stdout
    assert f"following SLURM job {job}" in result.stdout
    assert jobs_of(prepared) == [job]


def test_a_launcher_killed_before_it_noted_the_job_finds_it(prepared: Project, tmp_path: Path) -> None:
    """Between sbatch and the note of the job's number there is a moment in which the launcher can die."""
    prepared.edit("model: {base: dit}\n    training: {base: tiny}", f"model: {{base: dit}}\n    {LONG}")
    process = start(prepared, tmp_path / "log")
    try:
        wait_for(lambda: list(prepared.folder.glob("work/dit-*/job.json")))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    next(prepared.folder.glob("work/dit-*/job.json")).unlink()
    result = prepared.command(*train(prepared))
    assert result.returncode == 0, result.stdout
    assert len(jobs_of(prepared)) == 1


def test_two_launchers_of_one_run(prepared: Project, tmp_path: Path) -> None:
    """The second must say what it waits for and submit nothing."""
    prepared.edit("model: {base: dit}\n    training: {base: tiny}", f"model: {{base: dit}}\n    {LONG}")
    process = start(prepared, tmp_path / "log")
    try:
        wait_for(lambda: list(prepared.folder.glob("work/dit-*/job.json")))
        result = prepared.command(*train(prepared))
        assert result.returncode == 0, result.stdout
        assert "another process trains in work/dit-" in result.stdout
        assert process.wait(timeout=120) == 0
        assert len(jobs_of(prepared)) == 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_failing_job_shows_the_end_of_its_log(prepared: Project) -> None:
    """The cause stands in a file of the cluster; the person looks at this output. Mended, the same call goes on."""
    images = prepared.folder / "data/photos16/images.npy"
    good = images.read_bytes()
    images.write_bytes(b"not what it was")
    result = prepared.command(*train(prepared))
    assert result.returncode == 1
    assert "ended without a result" in result.stdout
    assert "data/photos16: no usable dataset" in result.stdout
    assert "Traceback" not in result.stdout.split("--- end of")[0]
    assert not (prepared.folder / "results").exists()
    images.write_bytes(good)
    assert prepared.command(*train(prepared)).returncode == 0
    assert len(jobs_of(prepared)) == 2


def test_a_cancelled_job_is_not_waited_for(prepared: Project, tmp_path: Path) -> None:
    """Without accounting submitit itself would wait for ever; the next call submits anew and resumes."""
    prepared.edit("model: {base: dit}\n    training: {base: tiny}", f"model: {{base: dit}}\n    {LONG}")
    process = start(prepared, tmp_path / "log")
    try:
        wait_for(lambda: list(prepared.folder.glob("work/dit-*/state-*.json")))
        subprocess.run(["scancel", *jobs_of(prepared)], check=True)
        assert process.wait(timeout=120) == 1
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "ended without a result" in (tmp_path / "log").read_text()
    result = prepared.command(*train(prepared))
    assert result.returncode == 0, result.stdout
    (log,) = prepared.folder.glob(f"work/dit-*/slurm/{jobs_of(prepared)[-1]}_*_log.err")
    assert "resuming at step" in log.read_text()


def test_an_unknown_partition_is_reported(prepared: Project) -> None:
    """Sbatch's refusal reaches the person in a line, not as a traceback."""
    job = json.dumps({**JOB, "slurm_partition": "nowhere"})
    result = prepared.command("dip", "train", "dit", "--launcher", "slurm", "--slurm", job)
    assert result.returncode == 1
    assert "invalid partition" in result.stdout.lower()
    assert "Traceback" not in result.stdout
