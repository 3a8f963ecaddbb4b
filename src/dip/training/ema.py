"""Exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

_LONGEST_PERIOD = 10


class EMA:
    """Shadow weights: shadow <- decay * shadow + (1 - decay) * weight after every step.

    Further decays are moved every k-th step only, by decay^k, so that a training which follows several hardly costs
    more than those it is compared with. k is a tenth of the 1 / (1 - decay) steps that an average looks back, at most
    10: no average lags by more than that tenth.

    Args:
        model: The model whose floating-point parameters and buffers are averaged; others, such as indices, are taken
            as they are.
        decay: In [0, 1); the paper has 0.9999.
        others: Further decays to follow, each by shadow weights of its own: the size of the model once more.

    Attributes:
        shadows: Shadow weights of every decay.
        shadow: Those of `decay`.
    """

    def __init__(self, model: nn.Module, decay: float, others: Sequence[float] = ()) -> None:
        weights = model.state_dict()
        self.shadows: dict[float, dict[str, Tensor]] = {
            each: {name: value.detach().clone() for name, value in weights.items()} for each in (decay, *others)
        }
        self.shadow = self.shadows[decay]

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the shadows towards the model's weights.

        Args:
            model: The model.
            step: Steps that it has made, of which it depends what further decays do.
        """
        current = model.state_dict()
        averaged = [name for name, value in current.items() if value.is_floating_point()]
        weights = [current[name] for name in averaged]
        for decay, shadow in self.shadows.items():
            period = 1 if shadow is self.shadow else period_of(decay)
            if step % period == 0:
                torch._foreach_lerp_([shadow[name] for name in averaged], weights, 1 - decay**period)
                for name in current.keys() - averaged:
                    shadow[name].copy_(current[name])

    def load(self, shadows: Mapping[float, Mapping[str, Tensor]]) -> None:
        """Take over saved shadow weights of the same decays, names and shapes."""
        for decay, shadow in self.shadows.items():
            for name, value in shadow.items():
                value.copy_(shadows[decay][name])

    def restart(self, model: nn.Module) -> None:
        """Begin the averages anew at the model's weights."""
        weights = model.state_dict()
        self.load(dict.fromkeys(self.shadows, weights))


def period_of(decay: float) -> int:
    """Steps from one update of a further decay, in [0, 1), to the next: 1 to 10."""
    return min(max(1, round(0.1 / (1 - decay))), _LONGEST_PERIOD)
