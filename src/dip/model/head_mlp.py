"""Standard MLP head (section 3.4, Table 2).

"As a simple baseline, we used MLP that takes the feature vector s_i and a flattened noisy patch p_i as input.
While straightforward, this design lacks any inherent spatial bias, treating all pixels within the patch as an
unordered set."

Shapes: B batch, N patches, P patch side, D hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dip.model.backbone import CHANNELS
from dip.model.head import PatchDetailerHead

if TYPE_CHECKING:
    from dip import schema


class MLPHead(PatchDetailerHead):
    """[s_i, p_i] -> Linear of equal width -> SiLU -> Linear to pixels; 630.2M in all, the paper has 630M."""

    # ASSUMPTION: one hidden layer as wide as its input, D + 3 P^2; the paper gives no size, and the total is its 630M.
    def __init__(self, patch_size: int, hidden_size: int) -> None:
        super().__init__()
        pixels = CHANNELS * patch_size**2
        self.hidden = nn.Linear(hidden_size + pixels, hidden_size + pixels)
        self.output = nn.Linear(hidden_size + pixels, pixels)

    @classmethod
    def from_params(cls, head: schema.MLPHead, model: schema.Model, grid_size: tuple[int, int]) -> Self:
        """See `PatchDetailerHead.from_params`."""
        return cls(model.patch_size, model.hidden_size)

    def forward(self, patches: Tensor, tokens: Tensor, t_emb: Tensor) -> Tensor:
        """See `PatchDetailerHead.forward`."""
        return self.output(F.silu(self.hidden(torch.cat([tokens, patches], dim=-1))))
