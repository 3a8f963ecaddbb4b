"""Solvers by name, with guidance inside an interval.

B batch, C channels, H x W image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dip.diffusion.evaluations import is_guided, step_times

if TYPE_CHECKING:
    from dip.schema import Sampling

Velocity = Callable[[Tensor, float], Tensor]  # of x_t at t; both velocities of shape (B, C, H, W)


@torch.inference_mode()
def sample(model: nn.Module, x_0: Tensor, y: Tensor, sampling: Sampling, null_class: int) -> Tensor:
    """Draw images, from noise (t = 0) to data (t = 1); `dip.sampling.fast` does the same faster.

    Args:
        model: Velocity network, called as `model(x_t, t, y)`.
        x_0: Noise, float32, shape (B, C, H, W).
        y: Labels, int64, shape (B,).
        sampling: Solver, steps and guidance.
        null_class: Label of the unconditional pass.

    Returns:
        Images, float32, about [-1, 1], shape (B, C, H, W).

    Source: paper section 4.1 (Euler, 100 steps) and appendix C (guidance interval).
    """
    null = torch.full_like(y, null_class)

    def velocity(x_t: Tensor, t: float) -> Tensor:
        if not is_guided(sampling, t):
            return model(x_t, _batched(t, len(y), x_t), y).float()
        both = model(torch.cat([x_t, x_t]), _batched(t, 2 * len(y), x_t), torch.cat([y, null]))
        return guided(both, sampling.cfg_scale)

    return integrate(velocity, x_0, sampling)


def integrate(velocity: Velocity, x_0: Tensor, sampling: Sampling) -> Tensor:
    """Integrate a velocity from t = 0 to t = 1 on a uniform grid.

    Args:
        velocity: Of x_t of shape (B, C, H, W) at t, taken at `evaluation_times` in their order.
        x_0: Noise, float32, shape (B, C, H, W).
        sampling: Solver and steps.

    Returns:
        Shape (B, C, H, W), float32.
    """
    return SOLVERS[sampling.solver](velocity, x_0, step_times(sampling.num_steps))


def guided(both: Tensor, cfg_scale: float) -> Tensor:
    """Classifier-free guidance v_null + w (v_y - v_null).

    Args:
        both: Conditional velocities, then unconditional ones, shape (2 B, C, H, W).
        cfg_scale: w.

    Returns:
        Shape (B, C, H, W), float32.
    """
    conditional, unconditional = both.float().chunk(2)
    return unconditional + cfg_scale * (conditional - unconditional)


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] of shape (B, C, H, W) to uint8 of shape (B, H, W, C), rounded and clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _euler(velocity: Velocity, x_t: Tensor, times: Sequence[float]) -> Tensor:
    """First order, one velocity a step."""
    # ASSUMPTION: "Euler-Maruyama ODE sampler" (appendix C) is Euler's method: an ODE has no noise to add, and section
    # 4.1 and Table 4 say Euler.
    for t, t_next in pairwise(times):
        x_t = x_t + (t_next - t) * velocity(x_t, t)
    return x_t


def _heun(velocity: Velocity, x_t: Tensor, times: Sequence[float]) -> Tensor:
    """Second order, two velocities a step: the mean of those at both of its ends."""
    for t, t_next in pairwise(times):
        v = velocity(x_t, t)
        v_next = velocity(x_t + (t_next - t) * v, t_next)
        x_t = x_t + (t_next - t) * (v + v_next) / 2
    return x_t


def _adams_bashforth(velocity: Velocity, x_t: Tensor, times: Sequence[float]) -> Tensor:
    """Second order, one velocity a step: extrapolated from the last two; the first step is Euler's."""
    v_last = None
    for t, t_next in pairwise(times):
        v = velocity(x_t, t)
        x_t = x_t + (t_next - t) * (v if v_last is None else 1.5 * v - 0.5 * v_last)
        v_last = v
    return x_t


SOLVERS = {"euler": _euler, "heun": _heun, "ab2": _adams_bashforth}
"""Solvers by their names in params.yaml."""


def _batched(t: float, batch_size: int, like: Tensor) -> Tensor:
    return torch.full((batch_size,), t, dtype=torch.float32, device=like.device)
