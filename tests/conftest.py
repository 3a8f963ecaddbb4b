"""Projects for the tests of the workflow and of SLURM."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from project import TINY, Project, Repository


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A tiny project in which nothing has been made."""
    return Project.create(tmp_path / "project", TINY)


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.create(tmp_path_factory.mktemp("finished") / "project", TINY)
    project.make()
    return project


@pytest.fixture
def finished(_finished: Project, tmp_path: Path) -> Project:
    """A tiny project in which everything has been made: a copy, free to edit."""
    return _finished.copy(tmp_path / "project")


@pytest.fixture(scope="session")
def _recorded(_finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    repository = Repository.create(tmp_path_factory.mktemp("recorded") / "project", TINY)
    for name in ("data", "results", "work"):
        shutil.copytree(_finished.folder / name, repository.folder / name)
    repository.run("dvc", "repro")
    repository.commit()
    return repository


@pytest.fixture
def recorded(_recorded: Repository, tmp_path: Path) -> Repository:
    """A tiny repository in which everything has been made and DVC has recorded it: a copy, free to edit."""
    return _recorded.copy(tmp_path / "project")
