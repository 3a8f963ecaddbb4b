"""tensorboard events of a training."""

from __future__ import annotations

import builtins
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dip.schema import TrainingSpec
from dip.training import events
from dip.training.distributed import Group, Place
from dip.training.events import Events, draw_samples
from dip.training.loop import Saver, train
from dip.training.state import TrainingState


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()


def test_numbers_and_grids_are_at_their_steps(workplace: Path, spec: TrainingSpec) -> None:
    """Wrong: curves would be missing or shifted, or there would be nothing to look at."""
    train(spec, Path("work"), sample_every=6)
    found = read(Path("work/events"))
    assert {"loss", "velocity_loss", "gradient_norm", "learning_rate", "images_per_second"} <= set(found.scalars.Keys())
    assert [event.step for event in found.Scalars("loss")] == list(range(2, 17, 2))
    assert [event.step for event in found.Images("samples")] == [6, 12]


def test_steps_that_are_taken_again_show_once(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: after an interruption a curve would run back."""
    original = Saver.save

    def save(self: Saver, step: int, state: dict[str, Any]) -> None:
        original(self, step, state)
        if step == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", save)
        patch.setattr(Saver, "due_by_step", lambda self, step: step in (3, 9))
        with pytest.raises(KeyboardInterrupt):
            train(spec, Path("work"))
    (Path("work") / "state-00000009.json").unlink()
    train(spec, Path("work"))
    assert [event.step for event in read(Path("work/events")).Scalars("loss")] == list(range(2, 17, 2))


def test_grids_show_the_averaged_weights_from_the_same_noise(workplace: Path, spec: TrainingSpec) -> None:
    """Wrong: two grids would differ by luck; or the model would be left with other weights."""
    state = TrainingState.new(spec, Group(Place(), torch.device("cpu")))
    labels = np.array([0, 1, 1])
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    grids = [draw_samples(state, spec, labels) for _ in range(2)]
    assert grids[0].shape == (3, 8, 8, 3) and grids[0].dtype == np.uint8
    np.testing.assert_array_equal(*grids)
    for value in state.ema.shadow.values():
        value.zero_()
    assert (draw_samples(state, spec, labels) != grids[0]).any()
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_training_goes_on_without_tensorboard(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: a node with nothing but PyTorch could not train."""
    original = builtins.__import__

    def absent(name: str, *arguments: Any, **settings: Any) -> Any:
        if "tensorboard" in name:
            raise ImportError(name)
        return original(name, *arguments, **settings)

    monkeypatch.setattr(builtins, "__import__", absent)
    with caplog.at_level(logging.INFO):
        train(spec, Path("work"), sample_every=4)
    assert (Path("work") / "model.safetensors").exists()
    assert caplog.text.count("tensorboard is not installed here") == 1


def test_disk_that_does_not_take_events_is_told_once(
    tmp_path: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: curves that nobody needs would end a training."""
    shown = Events(tmp_path / "events", 0)

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shown._writer, "add_scalar", full)
    for step in (1, 2):
        shown.line({"step": step, "loss": 0.5, "device": "CPU"})
    shown.close()
    assert caplog.text.count("no more tensorboard events are written: [Errno 28] No space left on device") == 1
    shown = Events(tmp_path / "grids", 0)
    monkeypatch.setattr(shown._writer, "add_image", full)
    shown.samples(TrainingState.new(spec, Group(Place(), torch.device("cpu"))), spec, ["one", "two"])
    assert caplog.text.count("no more tensorboard events") == 2
    (tmp_path / "file").write_text("")
    events.Events(tmp_path / "file", 0).close()
    assert caplog.text.count("no more tensorboard events") == 3
