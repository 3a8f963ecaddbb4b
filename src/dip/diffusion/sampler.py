"""Euler's method with guidance inside an interval.

B batch, C channels, H x W image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from dip.schema import Sampling


def num_function_evaluations(sampling: Sampling) -> int:
    """Forward passes per image: one for each step, two for each step inside the guidance interval."""
    return sum(1 + _is_guided(sampling, t) for t in _times(sampling.num_steps)[:-1])


def nfe_label(sampling: Sampling) -> str:
    """The paper's way to write it: `100x2` with guidance, `100` without."""
    return f"{sampling.num_steps}x2" if sampling.cfg_scale > 1 else f"{sampling.num_steps}"


@torch.inference_mode()
def sample(model: nn.Module, x_0: Tensor, y: Tensor, sampling: Sampling, null_class: int) -> Tensor:
    """Integrate the velocity from noise (t = 0) to data (t = 1) on a uniform grid.

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
    x_t = x_0
    null = torch.full_like(y, null_class)
    times = _times(sampling.num_steps)
    for t, t_next in pairwise(times):
        if _is_guided(sampling, t):
            both = model(torch.cat([x_t, x_t]), _batched(t, 2 * len(y), x_t), torch.cat([y, null]))
            conditional, unconditional = both.float().chunk(2)
            v = unconditional + sampling.cfg_scale * (conditional - unconditional)
        else:
            v = model(x_t, _batched(t, len(y), x_t), y).float()
        x_t = x_t + (t_next - t) * v
    return x_t


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] of shape (B, C, H, W) to uint8 of shape (B, H, W, C), rounded and clipped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _times(num_steps: int) -> list[float]:
    return [step / num_steps for step in range(num_steps + 1)]


def _is_guided(sampling: Sampling, t: float) -> bool:
    low, high = sampling.cfg_interval
    return sampling.cfg_scale != 1 and low <= t <= high


def _batched(t: float, batch_size: int, like: Tensor) -> Tensor:
    return torch.full((batch_size,), t, dtype=torch.float32, device=like.device)
