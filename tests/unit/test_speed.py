"""Speeds change how a model computes, and neither its results nor the names of its weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dip.model import DiP, build_model
from dip.model.convolution import PatchConv
from dip.schema import Run
from dip.speed import default_speed, set_speed


def model_of(run: Run) -> DiP:
    """The tiny model with a U-Net head, the same at every call."""
    torch.manual_seed(0)
    model = build_model(run.model, 8, 2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert any(isinstance(module, PatchConv) for module in model.modules())
    return model


def gradients(model: DiP) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_t, t = torch.randn(3, 3, 8, 8, generator=generator), torch.rand(3, generator=generator)
    v = model(x_t, t, torch.tensor([0, 1, 2]))
    assert isinstance(v, Tensor)
    v.square().mean().backward()
    return [v, *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


def test_a_training_step_is_the_same_to_rounding(run: Run) -> None:
    """Wrong: a switch for speed would train another model."""
    plain, fast = model_of(run), model_of(run)
    assert (set_speed(plain, "plain"), set_speed(fast, "fast")) == ("plain", "fast")
    for usual, quick in zip(gradients(plain), gradients(fast), strict=True):
        torch.testing.assert_close(quick, usual, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("speed", ["plain", "fast", pytest.param("compiled", marks=pytest.mark.slow)])
def test_weights_keep_their_names(run: Run, speed: str) -> None:
    """Wrong: checkpoints of a compiled training would have `_orig_mod.` in them, and load nowhere else."""
    model = model_of(run)
    names = list(model.state_dict())
    set_speed(model, speed)
    assert list(model.state_dict()) == names


def test_the_device_chooses_where_nobody_does(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a GPU would wait for the host, or a laptop would compile for a minute before each stage."""
    assert (default_speed(torch.device("cuda")), default_speed(torch.device("cpu"))) == ("compiled", "fast")
    assert set_speed(model_of(run), None) == "fast"
    monkeypatch.setattr("dip.speed.find_spec", lambda name: None)
    assert default_speed(torch.device("cuda")) == "fast", "Triton is not there on every platform"
    with pytest.raises(ValueError, match="unknown speed 'quick', expected one of plain, fast, compiled"):
        set_speed(model_of(run), "quick")
