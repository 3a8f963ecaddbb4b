"""Projects for the tests of the workflow and of SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest

from project import TINY, Project


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
