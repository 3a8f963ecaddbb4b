"""Random numbers by counters: their distribution, their independence, and that they never change."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from dip.random import Stream, hashed, noise, uniform

CPU = torch.device("cpu")


def test_numbers_are_pinned() -> None:
    """Wrong: an interrupted training would go on with other numbers after an update."""
    assert int(hashed(0, 1, 2)) == 0x5DEF8C1F8A9E3322
    assert int(hashed(0, 1, 2)) == int(hashed(np.int64(0), np.array(1), 2))
    pinned = [0.274713, 0.319323, 0.257164, 0.800126, 0.881872]  # flip, time, dropout, noise of training and sampling
    assert uniform(0, [int(stream) for stream in Stream], 1) == pytest.approx(pinned, abs=1e-6)
    drawn = noise(0, Stream.SAMPLING_NOISE, [(5,)], (3,), CPU)[0]
    assert drawn.tolist() == pytest.approx([2.287983, -0.203047, -0.230405], abs=1e-5)


def test_counters_broadcast_and_do_not_commute() -> None:
    """Wrong: the numbers of (step 1, image 2) and of (step 2, image 1) would be the same."""
    grid = hashed(3, np.arange(50)[:, None], np.arange(40))
    assert grid.shape == (50, 40)
    assert len(np.unique(grid)) == grid.size
    assert grid[7, 5] == hashed(3, 7, 5)


def test_uniform_numbers_are_uniform_and_never_0_or_1() -> None:
    """Wrong: times or label dropout would be biased, or the inverse of a normal distribution infinite."""
    u = uniform(0, Stream.TIME, np.arange(200)[:, None], np.arange(100)).ravel()
    assert u.min() > 0 and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.03


def test_streams_are_independent() -> None:
    """Wrong: flips would depend on times, or on another seed's."""
    index = np.arange(20_000)
    draws = [uniform(seed, stream, index) for seed in (0, 1) for stream in Stream]
    for a, b in itertools.combinations(draws, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.04


def test_noise_is_normal_and_depends_on_its_own_counters_alone() -> None:
    """Wrong: images would depend on the batch size of sampling."""
    together = noise(0, Stream.SAMPLING_NOISE, [(i,) for i in range(8)], (3, 16, 16), CPU)
    alone = noise(0, Stream.SAMPLING_NOISE, [(5,)], (3, 16, 16), CPU)
    assert torch.equal(together[5:6], alone)
    assert together.dtype == torch.float32
    assert stats.kstest(together.numpy().ravel(), "norm").pvalue > 0.01
    other = noise(1, Stream.SAMPLING_NOISE, [(5,)], (3, 16, 16), CPU)
    training = noise(0, Stream.TRAINING_NOISE, [(5,)], (3, 16, 16), CPU)
    for different in (other, training, together[4:5]):
        assert abs(np.corrcoef(alone.numpy().ravel(), different.numpy().ravel())[0, 1]) < 0.12


def test_noise_leaves_torch_s_own_generator_alone() -> None:
    """Wrong: drawing noise would change other random numbers, or be changed by them."""
    state = torch.get_rng_state()
    noise(0, Stream.TRAINING_NOISE, [(0, 0)], (3,), CPU)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_all_seeds_of_params_yaml_work(seed: int) -> None:
    """Wrong: a large seed, accepted when params.yaml is read, would end in a traceback."""
    assert 0 < uniform(seed, Stream.TIME, 0) < 1
    assert noise(seed, Stream.TRAINING_NOISE, [(0,)], (3,), CPU).shape == (1, 3)
