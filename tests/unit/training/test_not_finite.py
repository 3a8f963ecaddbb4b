"""If these fail, a training goes on with NaN, or keeps and publishes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from trainings import changed

from dip.schema import TrainingSpec
from dip.training import optimization
from dip.training.ema import EMA
from dip.training.interval import NonFiniteError
from dip.training.loop import train


@pytest.fixture
def broken_loss(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[Any], Any]], None]:
    """Change the loss of one step."""

    def install(step: int, change: Callable[[Any], Any]) -> None:
        original, calls = optimization.velocity_loss, 0

        def velocity_loss(v: Any, target: Any) -> Any:
            nonlocal calls
            calls += 1
            loss = original(v, target)
            return change(loss) if calls == step else loss

        monkeypatch.setattr(optimization, "velocity_loss", velocity_loss)

    return install


def test_loss_that_is_not_finite_stops_the_run(
    workplace: Path, spec: TrainingSpec, broken_loss: Callable[..., None]
) -> None:
    """Wrong: hours would be spent on NaN, or a NaN would be masked and published."""
    work = Path("work")
    broken_loss(7, lambda loss: loss * float("nan"))
    with pytest.raises(NonFiniteError, match=r"not finite at step 7; the last good checkpoint is of step 6 in work"):
        train(spec, work, save_steps=2)
    assert sorted(path.name for path in work.glob("*.pt")) == ["state-00000004.pt", "state-00000006.pt"]
    assert not (work / "model.safetensors").exists()


def test_loss_that_is_not_finite_before_any_checkpoint(
    workplace: Path, spec: TrainingSpec, broken_loss: Callable[..., None]
) -> None:
    """Wrong: the message would name a checkpoint that there is not, or not say what to change."""
    broken_loss(1, lambda loss: loss / 0)
    with pytest.raises(NonFiniteError, match=r"at step 1; no checkpoint yet\. Lower training\.learning_rate"):
        train(spec, Path("work"), save_steps=2)


@pytest.mark.parametrize("step", [6, 16])
def test_gradient_that_is_not_finite_is_not_kept(
    workplace: Path, spec: TrainingSpec, broken_loss: Callable[..., None], step: int
) -> None:
    """Wrong: a finite loss with a NaN gradient would spoil the "last good" checkpoint or the published weights."""

    def spoil(loss: torch.Tensor) -> torch.Tensor:
        loss.register_hook(lambda gradient: gradient * float("nan"))
        return loss

    work = Path("work")
    broken_loss(step, spoil)
    with pytest.raises(NonFiniteError, match=rf"the gradient is not finite at step {step}; .* of step {step - 2}"):
        train(spec, work, save_steps=2)
    assert not (work / f"state-{step:08d}.pt").exists()
    assert not (work / "model.safetensors").exists()


@pytest.mark.parametrize(("step", "save_steps", "kept"), [(6, 2, "state-00000006.pt"), (8, None, "milestone-0002*")])
def test_what_is_kept_between_two_lines_of_the_log_is_finite(
    workplace: Path, spec: TrainingSpec, broken_loss: Callable[..., None], step: int, save_steps: int | None, kept: str
) -> None:
    """Wrong: a checkpoint or a milestone would hold NaN, and the training could not go on from before it."""
    broken_loss(step, lambda loss: loss * float("nan"))
    with pytest.raises(NonFiniteError, match=rf"the loss is not finite at step {step}"):
        train(changed(spec, log_every=100), Path("work"), save_steps=save_steps)
    assert not list(Path("work").glob(kept))


@pytest.mark.parametrize(("step", "decay"), [(6, 0.5), (16, 0.9)])
def test_weights_that_are_not_finite_are_not_kept(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, step: int, decay: float
) -> None:
    """Wrong: an update that overflows after a sound gradient would be published, or spoil every later checkpoint."""
    original, work = EMA.update, Path("work")

    def update(self: EMA, model: nn.Module, number: int) -> None:
        original(self, model, number)
        if number == step:
            self.shadows[decay]["x_embedder.bias"][0] = float("inf")

    monkeypatch.setattr(EMA, "update", update)
    with pytest.raises(NonFiniteError, match=rf"the weights are not finite after step {step}; .* of step {step - 2}"):
        train(changed(spec, ema_decays=(0.9,)), work, save_steps=2)
    assert not (work / f"state-{step:08d}.pt").exists()
    assert not (work / "model.safetensors").exists()
