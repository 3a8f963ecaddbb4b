"""Exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EMA:
    """Shadow weights: shadow <- decay * shadow + (1 - decay) * weight after every step.

    Args:
        model: The model whose floating-point parameters and buffers are followed.
        decay: In [0, 1); the paper has 0.9999.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the shadow towards the model's weights."""
        current = model.state_dict()
        shadow = list(self.shadow.values())
        torch._foreach_lerp_(shadow, [current[name] for name in self.shadow], 1 - self.decay)

    def load(self, shadow: dict[str, Tensor]) -> None:
        """Take over saved shadow weights of the same names and shapes."""
        for name, value in self.shadow.items():
            value.copy_(shadow[name])
