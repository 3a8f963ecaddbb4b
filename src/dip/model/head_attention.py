"""Intra-patch attention head (section 3.4, Table 2).

"We explored using a small Transformer to operate on the pixels within each patch. Each P x P patch is treated
as a sequence of P^2 pixel tokens. This allows for complex, content-aware interactions between pixels but is
computationally intensive and may not be as efficient as convolutions for learning local patterns."

Shapes: B batch, N patches, P patch side, D hidden size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from dip.model.backbone import CHANNELS
from dip.model.head import PatchDetailerHead
from dip.model.layers import Attention, RMSNorm, RotaryEmbedding2D, SwiGLU, head_size_of

if TYPE_CHECKING:
    from dip import schema


class PixelBlock(nn.Module):
    """Pre-norm attention and SwiGLU over the pixels of a patch, without modulation."""

    def __init__(self, width: int, num_heads: int, *, qk_norm: bool) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attn = Attention(width, num_heads, qk_norm=qk_norm)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width)

    def forward(self, x: Tensor, rope: RotaryEmbedding2D) -> Tensor:
        """Map pixels (B N, P^2, width) to the same shape."""
        x = x + self.attn(self.norm1(x), rope)
        return x + self.mlp(self.norm2(x))


class AttentionHead(PatchDetailerHead):
    """A small transformer over the P^2 pixels of each patch; 629.8M in all, the paper has 630M."""

    # ASSUMPTION: the paper gives neither widths nor depth. Each pixel gets a 16-channel context from a linear
    # map of s_i, is embedded to 64 channels and passes two blocks of 4 heads: the total rounds to the paper's
    # 630M and the cost fits its 96 x 8 GPU hours. Positions inside the patch are rotary, as in the backbone.
    def __init__(
        self,
        patch_size: int,
        hidden_size: int,
        *,
        depth: int = 2,
        width: int = 64,
        num_heads: int = 4,
        context_width: int = 16,
        qk_norm: bool = True,
    ) -> None:
        """Make the transformer.

        Args:
            patch_size: P.
            hidden_size: D.
            depth: Number of blocks.
            width: Channels of a pixel; width / num_heads must be divisible by 4.
            num_heads: Attention heads, a divisor of width.
            context_width: Channels that a pixel receives from its patch's token.
            qk_norm: Normalise queries and keys.

        Raises:
            ValueError: width and num_heads do not fit.
        """
        super().__init__()
        self.num_pixels = patch_size**2
        self.context = nn.Linear(hidden_size, context_width * self.num_pixels)
        self.embed = nn.Linear(CHANNELS + context_width, width)
        self.rope = RotaryEmbedding2D(patch_size, patch_size, head_size_of(width, num_heads))
        self.blocks = nn.ModuleList(PixelBlock(width, num_heads, qk_norm=qk_norm) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.output = nn.Linear(width, CHANNELS)

    @classmethod
    def from_params(cls, head: schema.AttentionHead, model: schema.Model, grid_size: tuple[int, int]) -> Self:
        """See `PatchDetailerHead.from_params`."""
        return cls(
            model.patch_size,
            model.hidden_size,
            depth=head.depth,
            width=head.width,
            num_heads=head.num_heads,
            context_width=head.context_width,
            qk_norm=model.qk_norm,
        )

    def forward(self, patches: Tensor, tokens: Tensor, t_emb: Tensor) -> Tensor:
        """See `PatchDetailerHead.forward`."""
        context = rearrange(self.context(tokens), "b n (p c) -> (b n) p c", p=self.num_pixels)
        colours = rearrange(patches, "b n (c p) -> (b n) p c", c=CHANNELS)
        x = self.embed(torch.cat([colours, context], dim=-1))  # (B N, P^2, width)
        for block in self.blocks:
            x = block(x, self.rope)
        return rearrange(self.output(self.norm(x)), "(b n) p c -> b n (c p)", n=patches.shape[1])
