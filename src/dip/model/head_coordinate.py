"""Coordinate-based MLP head, PixNerd's decoder (section 3.4, Table 2; github.com/MCG-NJU/PixNerd).

"To introduce spatial awareness, a design inspired by NeRF can be adopted. For each pixel within p_i, we
concatenate its normalized 2D coordinates. s_i is used to dynamically generate the weights of a small,
coordinate-based MLP. This implicitly learns a continuous function of the image patch, but it lacks the strong
priors for local texture and structure that convolutions provide."

Shapes: B batch, N patches, P patch side, D hidden size, w width of a pixel, e width inside a generated MLP,
F frequencies per axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dip.model.backbone import CHANNELS
from dip.model.head import PatchDetailerHead
from dip.model.layers import RMSNorm

if TYPE_CHECKING:
    from dip import schema


def dct_features(patch_size: int, num_frequencies: int) -> Tensor:
    """Cosine features of the pixel positions (PixNerd): cos(pi x f) cos(pi y g) / (1 + f g).

    Args:
        patch_size: P; positions x, y are linspace(0, 1, P).
        num_frequencies: F; frequencies f, g are linspace(0, F, F).

    Returns:
        Features in [-1, 1], float32, shape (P^2, F^2), pixels row by row, x-frequency first.
    """
    positions = torch.linspace(0, 1, patch_size, dtype=torch.float64)
    frequencies = torch.linspace(0, num_frequencies, num_frequencies, dtype=torch.float64)
    waves = torch.cos(math.pi * positions[:, None] * frequencies)  # (P, F)
    damping = 1 / (1 + frequencies[:, None] * frequencies)  # (F, F)
    features = waves[None, :, :, None] * waves[:, None, None, :] * damping  # (y, x, f, g)
    return features.reshape(patch_size**2, num_frequencies**2).float()


class GeneratedBlock(nn.Module):
    """Residual MLP over pixels whose two matrices are made from the patch's token."""

    def __init__(self, hidden_size: int, width: int, expansion: int) -> None:
        super().__init__()
        self.expanded = width * expansion
        self.norm = RMSNorm(width)
        self.generator = nn.Linear(hidden_size, 2 * width * self.expanded)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Map pixels (B N, P^2, w) with their patches' contexts (B N, D) to the same shape."""
        first, second = self.generator(context).chunk(2, dim=-1)
        first = F.normalize(rearrange(first, "b (w e) -> b w e", e=self.expanded), dim=1)  # unit columns
        second = F.normalize(rearrange(second, "b (e w) -> b e w", e=self.expanded), dim=1)
        return x + torch.bmm(F.silu(torch.bmm(self.norm(x), first)), second)


class CoordinateHead(PatchDetailerHead):
    """Pixels and cosine features through generated MLPs; 700.6M in all, the paper has 700M."""

    # ASSUMPTION: PixNerd's sizes and position features, where the paper has "normalized 2D coordinates" and no sizes.
    def __init__(
        self,
        patch_size: int,
        hidden_size: int,
        *,
        depth: int = 4,
        width: int = 64,
        expansion: int = 2,
        num_frequencies: int = 8,
    ) -> None:
        """Make the embedding, the weight generators and the output layer.

        Args:
            patch_size: P.
            hidden_size: D.
            depth: Number of generated blocks.
            width: Channels of a pixel, w.
            expansion: Hidden width of a generated MLP in units of w.
            num_frequencies: Cosine frequencies per axis, F.
        """
        super().__init__()
        self.positions: Tensor
        self.register_buffer("positions", dct_features(patch_size, num_frequencies), persistent=False)
        self.embed = nn.Linear(CHANNELS + num_frequencies**2, width)
        self.blocks = nn.ModuleList(GeneratedBlock(hidden_size, width, expansion) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.output = nn.Linear(width, CHANNELS)

    @classmethod
    def from_params(cls, head: schema.CoordinateHead, model: schema.Model, grid_size: tuple[int, int]) -> Self:
        """See `PatchDetailerHead.from_params`."""
        return cls(
            model.patch_size,
            model.hidden_size,
            depth=head.depth,
            width=head.width,
            expansion=head.expansion,
            num_frequencies=head.num_frequencies,
        )

    def forward(self, patches: Tensor, tokens: Tensor, t_emb: Tensor) -> Tensor:
        """See `PatchDetailerHead.forward`."""
        context = rearrange(F.silu(tokens + t_emb[:, None]), "b n d -> (b n) d")
        colours = rearrange(patches, "b n (c p) -> (b n) p c", c=CHANNELS)
        positions = self.positions.expand(colours.shape[0], -1, -1).to(colours.dtype)  # (B N, P^2, F^2)
        x = self.embed(torch.cat([colours, positions], dim=-1))  # (B N, P^2, w)
        for block in self.blocks:
            x = block(x, context)
        return rearrange(self.output(self.norm(x)), "(b n) p c -> b n (c p)", n=patches.shape[1])
