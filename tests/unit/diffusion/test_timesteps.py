"""Distributions of t, against scipy."""

from __future__ import annotations

import typing
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import special, stats

from dip.diffusion.timesteps import timesteps
from dip.random import Stream, uniform
from dip.schema import LogitNormal, TimeShift, Timesteps, Uniform

U = torch.from_numpy(uniform(0, Stream.TIME, np.arange(20_000)))


def logit_normal_cdf(mean: float, std: float):
    return lambda t: stats.norm.cdf((special.logit(t) - mean) / std)


DISTRIBUTIONS = [
    (LogitNormal(name="logit_normal"), logit_normal_cdf(0, 1)),
    (LogitNormal(name="logit_normal", mean=-0.8, std=0.5), logit_normal_cdf(-0.8, 0.5)),
    (Uniform(name="uniform"), stats.uniform.cdf),
    (TimeShift(name="time_shift", shift=3.0), lambda t: 3 * t / (1 + 2 * t)),
]


def test_every_distribution_of_params_yaml_is_tested() -> None:
    """Wrong: one that is in the schema alone would fail at the first step of its training."""
    assert set(typing.get_args(typing.get_args(Timesteps)[0])) == {type(settings) for settings, _ in DISTRIBUTIONS}


@pytest.mark.parametrize(("distribution", "cdf"), DISTRIBUTIONS)
def test_distribution_is_the_one_of_its_name(distribution, cdf) -> None:
    """Wrong: training would see other noise levels than params.yaml says."""
    t = timesteps(distribution, U).numpy()
    assert t.min() > 0 and t.max() < 1
    assert stats.kstest(t, cdf).pvalue > 0.01


@pytest.mark.parametrize("distribution", [settings for settings, _ in DISTRIBUTIONS])
def test_time_grows_with_the_uniform_number(distribution) -> None:
    """Wrong: it would not be the inverse of the distribution function, and every training would see other times."""
    t = timesteps(distribution, torch.linspace(0.01, 0.99, 99, dtype=torch.float64))
    assert (t.diff() > 0).all()


def test_time_shift_goes_towards_noise() -> None:
    """Wrong: high resolutions would be trained near the data instead of near the noise (t = 0)."""
    assert timesteps(TimeShift(name="time_shift", shift=4.0), U).mean() < 0.4
    torch.testing.assert_close(timesteps(TimeShift(name="time_shift", shift=1.0), U), U)


def test_unknown_distribution_is_named() -> None:
    """Wrong: a distribution added to the schema alone would pass as another."""
    with pytest.raises(ValueError, match="no distribution 'triangular'"):
        timesteps(SimpleNamespace(name="triangular"), U)
