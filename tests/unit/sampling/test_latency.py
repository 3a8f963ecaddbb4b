"""The time of one image."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from dip.model import build_model
from dip.sampling import latency
from dip.schema import Run, SamplingSpec
from dip.training.checkpoint import save_weights


def test_latency_is_the_median_without_the_warm_up(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: compilation or caches of the first image would count, or more than one image would be timed."""
    shapes = []

    def slow_first(model: object, x_0: torch.Tensor, *rest: object, **settings: object) -> None:
        shapes.append(tuple(x_0.shape))
        time.sleep(0.3 if len(shapes) == 1 else 0.01)

    monkeypatch.setattr(latency, "sample", slow_first)
    weights = tmp_path / "model.safetensors"
    save_weights(weights, build_model(run.model, 8, 2).state_dict(), "{}")
    latency.measure_latency(run.part(SamplingSpec), weights, tmp_path / "latency.json", repeats=3)
    content = json.loads((tmp_path / "latency.json").read_text())
    assert shapes == [(1, 3, 8, 8)] * 4
    assert 0.01 <= content["latency_seconds"] < 0.2
    assert 0 <= content["latency_spread_seconds"] < 0.2
    assert (content["batch_size"], content["num_steps"], content["nfe"]) == (1, 4, "4x2")
    assert content["num_function_evaluations"] == 8
    assert content["dtype"] == "fp32" and content["device"] and content["versions"]["packages"]
