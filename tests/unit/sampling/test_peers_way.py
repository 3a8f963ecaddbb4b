"""The way that the benchmarks call the peers' draws the same samples: else they would compare two models."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from dip.diffusion.sampler import sample
from dip.model import build_model
from dip.schema import Model, Sampling

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def peers_way(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers_way")


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("head", [{"name": "unet", "depth": 2, "width": 4}, {"name": "attention", "width": 8}])
def test_the_peers_way_is_plain_to_rounding(peers_way: ModuleType, head: dict[str, object], qk_norm: bool) -> None:
    """Wrong: channels of q and k in another order than their rotation, or guidance where there is none."""
    settings = {"patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2, "head": head, "qk_norm": qk_norm}
    if head["name"] == "attention":
        head |= {"num_heads": 2, "context_width": 2}
    torch.manual_seed(0)
    model = build_model(Model.model_validate(settings), 8, 2).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    sampling = Sampling(num_steps=8, cfg_scale=2.0, cfg_interval=(0.25, 0.7), precision="fp32")
    x_0, y = torch.randn(3, 3, 8, 8), torch.tensor([1, 0, 1])
    plain = sample(model, x_0, y, sampling, null_class=2)
    peers_way.as_peers_write(model)
    torch.testing.assert_close(peers_way.sample_as_peers(model, x_0, y, sampling, 2), plain, rtol=1e-4, atol=1e-5)
    assert plain.std() > 0.1
