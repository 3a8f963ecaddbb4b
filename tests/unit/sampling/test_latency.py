"""What a sample costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dip.model import build_model
from dip.sampling import latency
from dip.sampling.fast import FastSampler
from dip.schema import Run, SamplingSpec
from dip.training.checkpoint import save_weights


@pytest.fixture
def weights(tmp_path: Path, run: Run) -> Path:
    """Random weights of the tiny model."""
    path = tmp_path / "model.safetensors"
    save_weights(path, build_model(run.model, 8, 2).state_dict(), "{}")
    return path


def measure(
    run: Run,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    seconds: Callable[[int, int], float],
    search_seconds: float = 300,
) -> Any:
    """The content of latency.json where `seconds(batch, calls so far)` is what a call takes; and the batches."""
    batches: list[int] = []
    clock = [0.0]  # one of its own: how busy the machine is must not matter

    def slow(sampler: object, x_0: torch.Tensor, y: torch.Tensor, *, num_steps: int | None) -> None:
        batches.append(len(x_0))
        clock[0] += seconds(len(x_0), len(batches)) if num_steps is None else 0

    monkeypatch.setattr(FastSampler, "__call__", slow)
    monkeypatch.setattr(latency, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    target = weights.with_name("latency.json")
    latency.measure_latency(run.part(SamplingSpec), weights, target, repeats=3, search_seconds=search_seconds)
    return json.loads(target.read_text()), batches


def test_latency_is_the_median_without_the_warm_up(run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: compilation or caches of the first image would count, or more than one image would be timed."""
    taken = [0.3, 0.06, 0.01, 0.02]  # the first is the warm-up
    content, batches = measure(
        run, weights, monkeypatch, lambda batch, calls: taken[calls - 1] if calls <= 4 else 0.02 * batch
    )
    assert batches[:4] == [1] * 4 and content["repeats"] == 3
    assert content["latency_seconds"] == pytest.approx(0.02)
    assert content["latency_spread_seconds"] == pytest.approx(0.05), "max - min"
    assert (content["batch_size"], content["num_steps"], content["nfe"]) == (1, 4, "4x2")
    assert content["num_function_evaluations"] == 8
    assert (content["dtype"], content["speed"]) == ("float32", "fast")
    assert content["device"] and content["versions"]["packages"]


def test_best_batch_is_the_one_after_which_nothing_is_gained(
    run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: images a second would be those of batch 1, or the search would go on to sizes that help nobody."""
    content, batches = measure(run, weights, monkeypatch, lambda batch, calls: 0.1 * max(1, batch / 4))
    assert batches == [1] * 4 + [2, 2, 4, 4, 8, 8, 16, 16], "each is warmed up by a few steps"
    assert content["best_batch_size"] == 4
    assert content["images_per_second"] == pytest.approx(40)
    assert 1e7 < content["peak_memory_bytes"] <= content["best_batch_peak_memory_bytes"]


def test_a_batch_that_does_not_fit_ends_the_search(run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the measurement of a large model would end in an error of the GPU."""

    def full(batch: int, calls: int) -> float:
        if batch > 2:
            raise torch.cuda.OutOfMemoryError("full")
        return 0.02

    content, _ = measure(run, weights, monkeypatch, full)
    assert content["best_batch_size"] == 2


def test_search_ends_with_its_time(run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: where larger batches go on to gain a little, the search would take longer than all samples."""
    content, batches = measure(run, weights, monkeypatch, lambda batch, calls: 0.05, search_seconds=0.08)
    assert max(batches) == content["largest_batch_size_tried"] == content["best_batch_size"] == 4
