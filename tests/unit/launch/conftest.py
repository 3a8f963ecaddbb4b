"""The training of the run `dip`, and a SLURM that does nothing, for tests of what is asked of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm, install

from dip.launch.jobs import TrainingJob
from dip.paths import RunFolder
from dip.schema import Params, TrainingSpec


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """Stand-ins for SLURM's commands, first on PATH."""
    fake = install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{fake.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("dip.launch.slurm._ASK_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr("dip.launch.launcher._APPEARS_SECONDS", 0)
    return fake


@pytest.fixture
def params(workplace: Path) -> Params:
    from dip import params

    return params.load()


@pytest.fixture
def job(params: Params, spec: TrainingSpec) -> TrainingJob:
    """The training of the run `dip`."""
    return TrainingJob.of("dip", RunFolder.of("demo", "dip"), spec)
