"""What a training goes on from."""

from __future__ import annotations

import copy

import pytest
import torch
from trainings import changed, use_encoder

from dip.schema import Alignment, TrainingSpec
from dip.training.distributed import Group, Place
from dip.training.state import TrainingState

GROUP = Group(Place(), torch.device("cpu"))


@pytest.fixture
def aligned(spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch) -> TrainingSpec:
    """The tiny training with alignment."""
    use_encoder(monkeypatch, "a" * 64)
    return changed(spec, alignment=Alignment(block=1))


def test_projector_learns(aligned: TrainingSpec) -> None:
    """Wrong: tokens would be pulled towards features through a random map that never fits them."""
    state = TrainingState.new(aligned, GROUP)
    assert state.alignment is not None
    learned = {id(parameter) for group in state.optimizer.param_groups for parameter in group["params"]}
    assert learned >= {id(parameter) for parameter in state.alignment.projector.parameters()}
    assert not learned & {id(parameter) for parameter in state.alignment.encoder.parameters()}


def test_state_has_what_a_training_has_beside_its_model(aligned: TrainingSpec) -> None:
    """Wrong: after a resume the projector would begin anew, or the cost of the training would lack what came before."""
    one, other = (TrainingState.new(changed(aligned, seed=seed), GROUP) for seed in (0, 1))
    one.device_hours, one.init_from = 2.5, {"path": "dit.pt"}
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert (other.device_hours, other.init_from) == (2.5, {"path": "dit.pt"})
    assert one.alignment is not None and other.alignment is not None
    projector = other.alignment.trainable_state()
    assert all(torch.equal(value, projector[name]) for name, value in one.alignment.trainable_state().items())
