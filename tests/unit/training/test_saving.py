"""When checkpoints are written, and that the loop can go on meanwhile."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from dip.training.checkpoint import StateFolder
from dip.training.distributed import Group, Place
from dip.training.saving import Saver, snapshot
from dip.training.signals import Request

MAIN = Group(Place(), torch.device("cpu"))


class SlowFolder(StateFolder):
    """Writes when it is told to."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go = threading.Event()

    def save(self, step: int, state: dict[str, Any]) -> None:
        assert self.go.wait(timeout=10)
        super().save(step, state)


def test_state_is_that_of_its_step_though_the_loop_goes_on(tmp_path: Path) -> None:
    """Wrong: a checkpoint would hold weights of a later step, or lines of the log of a later one."""
    folder, weights = SlowFolder(tmp_path), torch.zeros(3)
    state = {"model": {"w": weights}, "optimizer": {"groups": [{"lr": 0.1}], "steps": (weights,)}, "log": [{"step": 1}]}
    with Saver(folder, every_seconds=600, every_steps=None, group=MAIN) as saver:
        saver.save(1, state)
        weights += 1
        state["log"].append({"step": 2})
        state["optimizer"]["groups"][0]["lr"] = 0.2
        folder.go.set()
        saver.wait()
    saved = folder.read(1)
    assert torch.equal(saved["model"]["w"], torch.zeros(3)) and torch.equal(
        saved["optimizer"]["steps"][0], torch.zeros(3)
    )
    assert saved["log"] == [{"step": 1}] and saved["optimizer"]["groups"] == [{"lr": 0.1}]


def test_time_is_up_only_when_the_last_one_has_been_written(tmp_path: Path) -> None:
    """Wrong: the loop would wait for a slow disk, or copies would pile up in memory."""
    folder = SlowFolder(tmp_path)
    with Saver(folder, every_seconds=0, every_steps=None, group=MAIN) as saver:
        assert saver.request() is Request.SAVE
        saver.save(1, {})
        assert saver.request() is Request.NOTHING
        folder.go.set()
        saver.wait()
        assert saver.request() is Request.SAVE
    with Saver(folder, every_seconds=600, every_steps=None, group=MAIN) as saver:
        assert saver.request() is Request.NOTHING


def test_steps_are_the_same_in_every_process_and_the_main_one_writes(tmp_path: Path) -> None:
    """Wrong: processes would disagree on when to save, or write over each other."""
    other = Group(Place(rank=1, size=2), torch.device("cpu"))
    with Saver(StateFolder(tmp_path), every_seconds=0, every_steps=3, group=other) as saver:
        assert [step for step in range(1, 10) if saver.due_by_step(step)] == [3, 6, 9]
        assert saver.request() is Request.NOTHING
        saver.save(3, {})
    assert not list(tmp_path.iterdir())
    with Saver(StateFolder(tmp_path), every_seconds=0, every_steps=None, group=MAIN) as saver:
        assert not any(saver.due_by_step(step) for step in range(1, 10))


@pytest.mark.parametrize("notice", ["request", "save", "wait"])
def test_error_of_the_thread_stops_the_loop(tmp_path: Path, notice: str) -> None:
    """Wrong: a training would go on for days without a checkpoint."""
    (tmp_path / "file").write_text("")
    with Saver(StateFolder(tmp_path / "file"), every_seconds=0, every_steps=None, group=MAIN) as saver:
        saver.save(1, {})
        while not saver._writing.done():
            pass
        with pytest.raises(OSError, match="file"):
            saver.save(2, {}) if notice == "save" else getattr(saver, notice)()


def test_message_names_the_checkpoint_that_was_being_written(tmp_path: Path) -> None:
    """Wrong: after a failure people would look for an older state than there is."""
    folder = SlowFolder(tmp_path)
    with Saver(folder, every_seconds=0, every_steps=None, group=MAIN) as saver:
        assert saver.last_good() == "no checkpoint yet"
        saver.save(7, {})
        threading.Timer(0.05, folder.go.set).start()
        assert saver.last_good() == f"the last good checkpoint is of step 7 in {tmp_path}"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_copy_of_a_gpu_state_lies_in_pinned_memory() -> None:
    """Wrong: the loop would wait several times as long for the copy."""
    copy = snapshot({"w": torch.ones(5, device="cuda")})
    assert copy["w"].is_pinned() and torch.equal(copy["w"], torch.ones(5))
