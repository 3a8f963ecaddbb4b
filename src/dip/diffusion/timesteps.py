"""Distributions of t during training, by the names of params.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dip.schema import Timesteps


def timesteps(distribution: Timesteps, u: Tensor) -> Tensor:
    """Turn uniform numbers into times by the inverse of the distribution function.

    Args:
        distribution: `logit_normal`, `uniform` or `time_shift`, with its settings.
        u: Uniform in (0, 1), any shape.

    Returns:
        Times in (0, 1), 0 is noise, of the shape of `u`.

    Raises:
        ValueError: There is no distribution of that name.
    """
    if distribution.name == "logit_normal":
        # ASSUMPTION: sigmoid(N(0, 1)), the distribution of the DDT lineage; the paper names none.
        return torch.sigmoid(distribution.mean + distribution.std * torch.special.ndtri(u))
    if distribution.name == "uniform":
        return u
    if distribution.name == "time_shift":
        return u / (u + distribution.shift * (1 - u))
    raise ValueError(f"timesteps: there is no distribution '{distribution.name}'")
