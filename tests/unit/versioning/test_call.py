"""The call of DVC above this process, and DVC's lock."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from dip.versioning.call import Call, current_call
from dip.versioning.lock import wait_for_dvc


class Process:
    """A process with a command line, in a folder below this one."""

    def __init__(self, *words: str, folder: str = ".") -> None:
        self.words, self.folder = words, folder

    def cmdline(self) -> list[str]:
        return list(self.words)

    def cwd(self) -> str:
        return str(Path.cwd() / self.folder)

    def create_time(self) -> float:
        return 5.0


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        (("/venv/bin/python", "/venv/bin/dvc", "repro"), ()),
        (
            ("python", "-m", "dvc", "repro", "studies/demo/dvc.yaml:table-table1", "x"),
            ("studies/demo/dvc.yaml:table-table1", "x"),
        ),
        (("dvc", "repro", "--single-item", "-f", "stage"), ("stage",)),
        (("dvc", "exp", "run", "-S", "runs.a.model.depth=3", "--name", "n"), ()),
        (("dvc", "exp", "run", "-S", "study=small", "stage"), ("stage",)),
        (("dvc", "exp", "exec-run", "--infofile", "f"), ()),
        (("dvc", "no-such-command"), ()),
    ],
)
def test_targets_of_a_call(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], targets: tuple[str, ...]) -> None:
    """Wrong: everything would be made where one stage was asked for, or one stage where everything was."""
    above: list[Any] = [Process("bash", "-c", "dip build demo"), Process(*words), Process("dvc", "repro", "outer")]
    monkeypatch.setattr(psutil.Process, "parents", lambda process: above)
    assert current_call() == Call(targets, 5.0)


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("dvc.yaml:table-table1", "studies/demo/dvc.yaml:table-table1"),
        ("table-table1", "studies/demo/table-table1"),
        ("../../results/demo/table1.csv", "results/demo/table1.csv"),
        ("runs/dit/dvc.yaml", "studies/demo/runs/dit/dvc.yaml"),
    ],
)
def test_targets_of_a_call_from_a_subfolder(monkeypatch: pytest.MonkeyPatch, target: str, meant: str) -> None:
    """Wrong: who asks for one table from the folder of its study would get the whole study."""
    above = [Process("dvc", "repro", target, folder="studies/demo")]
    monkeypatch.setattr(psutil.Process, "parents", lambda process: above)
    assert current_call() == Call((meant,), 5.0)


def test_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a file that is named like DVC would be taken for it."""
    monkeypatch.setattr(psutil.Process, "parents", lambda process: [Process("vim", "dvc"), Process("cat", "x", "dvc")])
    assert current_call() is None


def test_waits_for_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Wrong: files would be written while DVC moves them; or a stage of DVC would wait for DVC for ever."""
    monkeypatch.chdir(tmp_path)
    wait_for_dvc(0)
    lock = Path(".dvc/tmp/lock")
    lock.parent.mkdir(parents=True)
    wait_for_dvc(0)
    lock.write_text("4711\n")
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        begin = time.monotonic()
        with pytest.raises(
            ValueError, match=r"DVC is at work in this folder \(process 4711\), and still is after 0.3 sec"
        ):
            wait_for_dvc(0.3)
        assert time.monotonic() - begin < 5
        assert "(process 4711); waiting for it" in caplog.text
        monkeypatch.setenv("DVC_STAGE", "build")
        wait_for_dvc(0)
    monkeypatch.delenv("DVC_STAGE")
    wait_for_dvc(0)
