"""A project for jobs of the test SLURM, and a watch over the queue: no work folder ever has two live jobs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, squeue

from project import TINY, Project


def _slurm_answers() -> bool:
    if shutil.which("squeue") is None:
        return False
    try:
        return subprocess.run(["squeue", "--noheader"], capture_output=True, timeout=10).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and skip them where no SLURM runs."""
    own = [item for item in items if Path(__file__).parent in item.path.parents]
    answers = bool(own) and _slurm_answers()
    for item in own:
        item.add_marker(pytest.mark.slurm)
        if not answers:
            item.add_marker(pytest.mark.skip(reason="no SLURM is running here; see tests/slurm/up.sh"))


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.create(tmp_path_factory.mktemp("prepared") / "project", TINY)
    result = project.command("dip", "prepare", "photos16")
    assert result.returncode == 0, result.stdout
    return project


@pytest.fixture
def cluster(_prepared: Project, tmp_path: Path) -> Iterator[Cluster]:
    """A project with its data; at the end its jobs and launchers are ended, and it is checked who worked when."""
    cluster = Cluster(_prepared.copy(tmp_path / "project"))
    cluster.settings()
    doubled: list[str] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.25):
            live = [row.split()[0] for row in squeue("--states=RUNNING,COMPLETING", "--format=%j %i")]
            doubled.extend(name for name, count in Counter(live).items() if count > 1 and name.startswith("dip-"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield cluster
    for job in cluster.jobs():
        subprocess.run(["scancel", "--quiet", job], check=False)
    for process in cluster.launchers:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    stop.set()
    watcher.join()
    assert not doubled, f"two live jobs of one work folder: {sorted(set(doubled))}"
