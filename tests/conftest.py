"""What all tests have in common: signals as in a terminal; projects for the tests of the workflow and of SLURM."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from project import TINY, Project, Repository


@pytest.fixture(autouse=True)
def signals_of_a_terminal() -> Iterator[None]:
    """Handlers that tests can change; a shell's jobs in the background would ignore SIGINT, and after nohup SIGHUP."""
    usual = {number: signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)}
    usual[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the workers of pytest-xdist have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A tiny project in which nothing has been made."""
    return Project.create(tmp_path / "project", TINY)


@pytest.fixture(scope="session")
def _finished(session_folder: Path) -> Project:
    making, finished = session_folder / "making", session_folder / "finished"
    with FileLock(session_folder / "finished.lock"):
        if not finished.exists():
            shutil.rmtree(making, ignore_errors=True)
            Project.create(making, TINY).make()
            making.rename(finished)
    return Project(finished)


@pytest.fixture
def finished(_finished: Project, tmp_path: Path) -> Project:
    """A tiny project in which everything has been made: a copy, free to edit."""
    return _finished.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def _recorded(_finished: Project, session_folder: Path) -> Repository:
    making, recorded = session_folder / "recording", session_folder / "recorded"
    with FileLock(session_folder / "recorded.lock"):
        if not recorded.exists():
            shutil.rmtree(making, ignore_errors=True)
            repository = Repository.create(making, TINY)
            for name in ("data", "results", "work"):
                shutil.copytree(_finished.folder / name, repository.folder / name)
            repository.run("dvc", "repro")
            repository.commit()
            making.rename(recorded)
    return Repository(recorded)


@pytest.fixture
def recorded(_recorded: Repository, tmp_path: Path) -> Repository:
    """A tiny repository in which everything has been made and DVC has recorded it: a copy, free to edit."""
    return _recorded.copy(tmp_path / "project")
