"""The training objective: flow matching on the velocity.

B batch, C channels, H x W image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dip.diffusion.path import PathSample, sample_path
from dip.diffusion.timesteps import timesteps
from dip.random import Stream, noise, uniform

if TYPE_CHECKING:
    from dip.schema import Training


def draw(
    x_1: Tensor, y: Tensor, training: Training, *, step: int, null_class: int, first: int = 0
) -> tuple[PathSample, Tensor]:
    """Draw t, noise and label dropout of a training step; all depend on (seed, step, index in the batch) alone.

    Args:
        x_1: Images in [-1, 1], shape (B, C, H, W).
        y: Labels, shape (B,).
        training: Seed, distribution of t and label dropout.
        step: Training step.
        null_class: Label that stands for "no label".
        first: Index of the first image in the global batch, where `x_1` is a part of it.

    Returns:
        The point on the path, and the labels with some replaced by `null_class`.
    """
    index = np.arange(first, first + len(y))
    u = torch.from_numpy(uniform(training.seed, Stream.TIME, step, index))
    t = timesteps(training.timesteps, u).float().to(x_1.device)
    counters = [(step, int(i)) for i in index]
    x_0 = noise(training.seed, Stream.TRAINING_NOISE, counters, tuple(x_1.shape[1:]), x_1.device)
    # ASSUMPTION: labels are dropped with probability 0.1 at the paper's scale, as DiT and DDT do for guidance.
    dropped = uniform(training.seed, Stream.LABEL_DROPOUT, step, index) < training.label_dropout
    y = torch.where(torch.from_numpy(dropped).to(y.device), null_class, y)
    return sample_path(x_0, x_1, t), y


def velocity_loss(v: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of the velocity over all pixels (paper eq. 5), a scalar in float32."""
    # ASSUMPTION: the output is the velocity of flow matching (appendix C); section 3.3 calls it "the noise component".
    return torch.nn.functional.mse_loss(v.float(), target)
