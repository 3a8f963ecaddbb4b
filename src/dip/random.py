"""Random numbers that depend on named counters alone, not on what was drawn before.

Every draw is a function of (seed, stream, counters), so an interrupted training or sampling that goes on draws
what an uninterrupted one draws, whatever the batch size and the number of processes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Stream(enum.IntEnum):
    """What a random number is for; streams of one seed are independent."""

    FLIP = 1
    TIME = 2
    LABEL_DROPOUT = 3
    TRAINING_NOISE = 4
    SAMPLING_NOISE = 5


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def hashed(*counters: ArrayLike) -> NDArray[np.uint64]:
    """64 random bits for each combination of counters, broadcast against each other."""
    with np.errstate(over="ignore"):
        state = np.zeros((), np.uint64)
        for counter in counters:
            state = _mix((state ^ np.asarray(counter).astype(np.uint64)) + _GOLDEN)
    return np.asarray(state)


def uniform(*counters: ArrayLike) -> NDArray[np.float64]:
    """Uniform in the open interval (0, 1), with 53 random bits."""
    return ((hashed(*counters) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def noise(
    seed: int,
    stream: Stream,
    counters: Iterable[tuple[int, ...]],
    shape: tuple[int, ...],
    device: torch.device,
) -> Tensor:
    """Standard normal samples, one per tuple of counters.

    Returns:
        float32 tensor of shape (number of tuples, *shape); the same on every run on the same type of device.
    """
    generator = torch.Generator(device)
    seeds = hashed(seed, int(stream), *np.array(list(counters)).T) >> np.uint64(1)
    samples = torch.empty(len(seeds), *shape, device=device)
    for own_seed, sample in zip(seeds.tolist(), samples, strict=True):
        generator.manual_seed(own_seed)
        torch.randn(shape, generator=generator, out=sample)
    return samples
