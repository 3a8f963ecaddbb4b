"""What a result was made with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dip import cli
from dip.environment import describe_environment, device_name, pick_device


def test_versions_and_python_are_recorded() -> None:
    """Wrong: nobody could tell what a result was made with."""
    found = describe_environment()
    packages = found["packages"]
    assert isinstance(packages, dict)
    assert packages["torch"] == torch.__version__.split("+")[0] or packages["torch"] == torch.__version__
    assert packages["numpy"] == np.__version__
    assert "dip" in packages
    assert str(found["python"]).startswith("3.")


def test_no_revision_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a copy without git could not train."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_environment()["git_revision"] is None
    monkeypatch.setenv("PATH", "")
    assert describe_environment()["git_revision"] is None


def test_revision_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: every result after an edit of params.yaml would look as if its code could not be found again."""
    monkeypatch.chdir(tmp_path)
    identity = ("-c", "user.name=Test", "-c", "user.email=test@dip.invalid")
    for path in ("params.yaml", "src/code.py"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text("1\n")
    for command in (("init",), ("add", "."), (*identity, "commit", "-m", "A test.")):
        subprocess.run(["git", "-c", "init.defaultBranch=main", *command], check=True, capture_output=True)
    Path("params.yaml").write_text("2\n")
    assert "dirty" not in str(describe_environment()["git_revision"])
    Path("src/code.py").write_text("2\n")
    assert str(describe_environment()["git_revision"]).endswith("-dirty")


def test_device_has_a_name() -> None:
    """Wrong: a latency would stand in a table without what it was measured on."""
    name = device_name(pick_device())
    assert len(name) > 5
    assert device_name(torch.device("cpu")).startswith("CPU, ")


def test_each_process_works_on_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: steps of sampling would be recorded on the first GPU, where the others' run nothing, and not drawn."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    current = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    devices = [pick_device(local_rank) for local_rank in range(4)]
    assert devices == current == [torch.device("cuda", index) for index in (0, 1, 0, 1)]


def test_system_that_does_not_tell_which_cores(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong: on macOS no command at all would start."""
    monkeypatch.delattr(os, "sched_getaffinity")
    with pytest.raises(SystemExit) as end:
        cli.main(["prepare", "--help"])
    assert end.value.code == 0
    assert f"(default: {os.cpu_count()})" in capsys.readouterr().out
