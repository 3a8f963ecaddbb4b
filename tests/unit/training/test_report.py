"""What a training shows of itself: the lines of its log, their curves, and how far it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import changed, use_encoder

from dip.progress import recorded
from dip.schema import Alignment, TrainingSpec
from dip.training.distributed import Group, Place
from dip.training.interval import SPIKE_MEMORY, Interval
from dip.training.report import Report, write_curves
from dip.training.state import TrainingState

GROUP = Group(Place(), torch.device("cpu"))


@pytest.fixture
def state(spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch) -> TrainingState:
    """A training of 16 steps, 4 an epoch, that goes on at step 5."""
    use_encoder(monkeypatch, "a" * 64)
    state = TrainingState.new(changed(spec, alignment=Alignment(block=1, weight=0.25)), GROUP)
    state.step, state.device_hours, state.log = 5, 1.0, [{"step": 4, "loss": 2.0, "velocity_loss": 1.0}]
    return state


def test_line_says_what_the_training_did(tmp_path: Path, spec: TrainingSpec, state: TrainingState) -> None:
    """Wrong: curves would stand over other steps, or show another loss, rate or cost than the training had."""
    aligned = changed(spec, alignment=Alignment(block=1, weight=0.25))
    (tmp_path / "training.jsonl").write_text('{"step": 4}\n{"step": 6}\n')  # the second is newer than the checkpoint
    with recorded(tmp_path / "progress.json"), Report(aligned, state, GROUP, tmp_path) as report:
        state.step = 6
        state.interval.add(torch.tensor([3.0, -0.5]), torch.tensor(7.0))
        report.line(0.125, waited=0.0)
        report.advance()
    lines = [json.loads(line) for line in (tmp_path / "training.jsonl").read_text().splitlines()]
    assert lines == state.log and [line["step"] for line in lines] == [4, 6]
    line = lines[-1]
    assert (line["epoch"], line["learning_rate"], line["velocity_loss"], line["gradient_norm"]) == (
        1.5,
        0.125,
        3.0,
        7.0,
    )
    assert (line["alignment_loss"], line["loss"]) == (-0.5, 3.0 - 0.25 * 0.5)
    assert line["loss_spike"] is True and line["gpu_hours"] == state.device_hours > 1.0
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["done"], progress["total"], progress["unit"]) == (6, 16, "step")


def test_what_a_line_is_measured_with(
    tmp_path: Path, spec: TrainingSpec, state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: a spike would be told by the losses of a week ago, or images a second by another batch."""
    settings: dict[str, Any] = {}
    measured = {"loss": 1.0, "velocity_loss": 1.0, "device_hours": 0.5}
    monkeypatch.setattr(Interval, "close", lambda self, **given: (settings.update(given), dict(measured))[1])
    state.log = [{"velocity_loss": float(number), "loss": 0.0} for number in range(SPIKE_MEMORY + 5)]
    with Report(spec, state, GROUP, tmp_path) as report:
        report.line(0.1, waited=0.75)
    recent = [float(number) for number in range(5, SPIKE_MEMORY + 5)]
    assert settings == {"batch_size": 4, "weights": {"velocity_loss": 1.0}, "recent": recent, "waited": 0.75}
    assert state.device_hours == 1.5


def test_a_disk_that_does_not_take_a_line_ends_no_training(
    tmp_path: Path, spec: TrainingSpec, state: TrainingState
) -> None:
    """Wrong: days of training would end for want of a line that is written again at the end."""
    with Report(spec, state, GROUP, tmp_path) as report:
        (tmp_path / "training.jsonl").unlink()
        (tmp_path / "training.jsonl").mkdir()
        state.interval.add(torch.ones(2), torch.tensor(1.0))
        report.line(0.1, waited=0.0)
    assert len(state.log) == 2


def test_curves_have_a_column_for_every_number(tmp_path: Path) -> None:
    """Wrong: DVC would draw other curves than the log has, or none."""
    write_curves(tmp_path, [{"step": 2, "loss": 0.5, "device": "CPU"}, {"step": 4, "loss": 0.25, "device": "CPU"}])
    assert (tmp_path / "training.csv").read_text() == "step,loss\n2,0.5\n4,0.25\n"
    write_curves(tmp_path, [])
    assert (tmp_path / "training.csv").read_text().strip() == ""
