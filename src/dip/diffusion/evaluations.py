"""Where a solver takes the velocity, and how often: what a sample costs, without the sampler."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dip.schema import Sampling


def step_times(num_steps: int) -> list[float]:
    """Both ends of every step, from 0 (noise) to 1 (data)."""
    # ASSUMPTION: equal steps. The paper names only their number; DDT and PixNerd end with one of 0.04.
    return [step / num_steps for step in range(num_steps + 1)]


def evaluation_times(sampling: Sampling) -> list[float]:
    """Where the solver takes the velocity, in order; Heun's comes to the inner times of the grid twice."""
    times = step_times(sampling.num_steps)
    return [t for step in pairwise(times) for t in step] if sampling.solver == "heun" else times[:-1]


def is_guided(sampling: Sampling, t: float) -> bool:
    """Whether the velocity at t takes the unconditional pass too."""
    # ASSUMPTION: the interval [0.11, 0.97] of appendix C is read in the code's t, 0 for noise, which is DDT's; the t
    # of the paper's eq. 6 runs the other way, and the paper does not say which one it means.
    low, high = sampling.cfg_interval
    return sampling.cfg_scale != 1 and low <= t <= high


def num_function_evaluations(sampling: Sampling) -> int:
    """Forward passes per image: one for each time the velocity is taken at, two where guidance is on."""
    return sum(1 + is_guided(sampling, t) for t in evaluation_times(sampling))


def nfe_label(sampling: Sampling) -> str:
    """The paper's way to write it: `100x2` for 100 velocities with guidance, `100` without."""
    count = len(evaluation_times(sampling))
    return f"{count}x2" if sampling.cfg_scale > 1 else f"{count}"
