"""`dip latency`: what a sample costs: seconds for one, samples a second at the best batch, and memory."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dip.diffusion.evaluations import nfe_label, num_function_evaluations
from dip.environment import describe_environment, device_name, pick_device
from dip.files import write_json
from dip.memory import peak_memory
from dip.precision import dtype_name
from dip.sampling.draw import load_sampler
from dip.sampling.fast import FastSampler

if TYPE_CHECKING:
    from dip.schema import SolverSpec

_log = logging.getLogger(__name__)
_GAIN = 1.05  # images a second that a larger batch must give, times those of the best one
_PATIENCE = 2  # batches in a row that may give less
_LARGEST_BATCH = 1024


def measure_latency(
    spec: SolverSpec,
    weights: Path,
    target: Path,
    *,
    repeats: int = 5,
    search_seconds: float = 300,
    speed: str | None = None,
) -> None:
    """Write what a sample of a run costs, as `cost_of_sampling` finds it.

    Args:
        spec: Model, solver and guidance.
        weights: EMA weights.
        target: JSON file to write.
        repeats: Images timed, one after the other.
        search_seconds: After so long no larger batch is tried.
        speed: As `FastSampler` takes it.
    """
    sampler = load_sampler(spec, weights, pick_device(), speed=speed)
    write_json(target, cost_of_sampling(sampler, spec.dataset.image_size, repeats, search_seconds))


def cost_of_sampling(sampler: FastSampler, image_size: int, repeats: int, search_seconds: float) -> dict[str, Any]:
    """The median time of one image after one warm-up, its spread, and images a second at the best batch.

    One image is measured as the paper does: batch 1, all steps, guidance. The batch is doubled (fourfold where each one
    is compiled for) until images a second twice in a row grow by less than 5 %, memory does not suffice, or the time
    for it is over.

    Args:
        sampler: Model, solver and guidance.
        image_size: H = W in pixels.
        repeats: Images timed, one after the other.
        search_seconds: After so long no larger batch is tried.

    Returns:
        Seconds, bytes, and what they were measured with, ready for JSON.
    """
    device, sampling = sampler.device, sampler.sampling

    def draw(batch_size: int, num_steps: int | None = None) -> float:
        """Seconds for a batch of images."""
        x_0 = torch.randn(batch_size, 3, image_size, image_size, device=device)
        y = torch.zeros(batch_size, dtype=torch.int64, device=device)
        start = time.perf_counter()
        sampler(x_0, y, num_steps=num_steps)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    _forget_peak_memory(device)  # that of loading the weights
    # ASSUMPTION: the median of five after a warm-up; the paper only says "single-image inference speed".
    draw(1)
    timed = np.array([draw(1) for _ in range(repeats)])
    latency, memory = float(np.median(timed)), peak_memory(device)

    def draw_warm(batch_size: int) -> float:
        sampler.forget_graphs()
        _forget_peak_memory(device)
        draw(batch_size, num_steps=2)  # the second lies in most intervals of guidance
        return draw(batch_size)

    growth = 4 if sampler.speed == "compiled" and device.type == "cuda" else 2
    return {
        "latency_seconds": latency,
        "latency_spread_seconds": float(timed.max() - timed.min()),
        "repeats": repeats,
        "batch_size": 1,
        "peak_memory_bytes": memory,
        **_best_batch(draw_warm, latency, device, search_seconds, growth),
        "num_steps": sampling.num_steps,
        "nfe": nfe_label(sampling),
        "num_function_evaluations": num_function_evaluations(sampling),
        "device": device_name(device),
        "num_threads": torch.get_num_threads(),
        "speed": sampler.speed,
        "dtype": dtype_name(sampling.precision, device),
        "versions": describe_environment(),
    }


def _best_batch(
    draw: Callable[[int], float], latency: float, device: torch.device, search_seconds: float, growth: int
) -> dict[str, Any]:
    """Images a second at the batch, of those tried, that gives most of them."""
    best = {
        "images_per_second": 1 / latency,
        "best_batch_size": 1,
        "best_batch_peak_memory_bytes": peak_memory(device),
    }
    batch_size, without_gain = growth, 0
    end = time.perf_counter() + search_seconds
    while batch_size <= _LARGEST_BATCH and without_gain < _PATIENCE and time.perf_counter() < end:
        try:
            rate = batch_size / draw(batch_size)
        except torch.cuda.OutOfMemoryError:
            _log.info("a batch of %d does not fit in memory", batch_size)
            break
        if rate >= _GAIN * best["images_per_second"]:
            memory = peak_memory(device)
            best = {"images_per_second": rate, "best_batch_size": batch_size, "best_batch_peak_memory_bytes": memory}
            without_gain = 0
        else:
            without_gain += 1
        batch_size *= growth
    return {**best, "largest_batch_size_tried": batch_size // growth}


def _forget_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
