"""Convolutional U-Net, the paper's Patch Detailer Head (section 3.4, Figure 6, Table 4).

"A shallow U-Net, which includes 4 downsampling and 4 upsampling blocks. Each block consists of a sequence of
Convolution, SiLU activation and pooling layer. The global feature vector s_i is concatenated channel-wise
with the downsampling output at the bottleneck." Kernel size 3, padding 1, last convolution 1 x 1 (sec. 4.1).

What the text leaves open follows from the parameter counts, 631M and + 0.3 % over DiT-only: a 1 x 1
convolution at the bottleneck and skips taken before the pooling give 630.6M.

Shapes: B batch, N patches, P patch side, D hidden size, H x W image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dip.model.backbone import CHANNELS, patchify, unpatchify
from dip.model.convolution import AveragePool, OutputConv, PatchConv
from dip.model.head import PatchDetailerHead

if TYPE_CHECKING:
    from dip import schema


class UNetHead(PatchDetailerHead):
    """U-Net over each patch alone, or over the whole image with the tokens as a grid at the bottleneck."""

    # ASSUMPTION: a 1 x 1 bottleneck, and skips taken before pooling: of the variants only this one has both of the
    # paper's counts (631M, + 0.3 %). 3 x 3 gives 637M, no skips 629.0M, skips after pooling 629.8M. So the "middle
    # layers" of section 4.1, with kernels of 3, are the blocks, and the bottleneck is none of them. It has a SiLU as
    # they have.
    def __init__(
        self,
        patch_size: int,
        hidden_size: int,
        *,
        depth: int = 4,
        width: int = 64,
        grid_size: tuple[int, int] | None = None,
    ) -> None:
        """Make the convolutions; the same ones for patches and for whole images.

        Args:
            patch_size: P.
            hidden_size: D.
            depth: Number of down- and of upsampling stages (Figure 10a); 4 in the paper.
            width: Channels of the first stage, doubled in each further one; 64 in the paper.
            grid_size: None: every patch is handled alone. (H / P, W / P): the U-Net runs on the whole image
                (image-level input, appendix D and Figure 11).

        Raises:
            ValueError: The patch cannot be halved `depth` times.
        """
        super().__init__()
        if patch_size % 2**depth:
            raise ValueError(
                f"a U-Net head of depth {depth} needs a patch size that is a multiple of 2^{depth} = "
                f"{2**depth}, got patch size {patch_size}; choose a smaller depth or a larger patch"
            )
        self.patch_size = patch_size
        self.grid_size = grid_size
        self.bottleneck_size = patch_size // 2**depth
        channels = [width * 2**stage for stage in range(depth)]  # 64, 128, 256, 512
        inputs = [CHANNELS, *channels[:-1]]
        outputs = [width, *channels[:-1]]  # 64, 64, 128, 256, used from last to first
        self.down = nn.ModuleList(PatchConv(before, after) for before, after in zip(inputs, channels, strict=True))
        self.pool = AveragePool()  # ASSUMPTION: of the mean; the paper only says "pooling layer"
        self.bottleneck = nn.Conv2d(channels[-1] + hidden_size, channels[-1], 1)
        self.up = nn.ModuleList(
            PatchConv(before, after, below=before)
            for before, after in zip(reversed(channels), reversed(outputs), strict=True)
        )
        self.output = OutputConv(width, CHANNELS)

    @classmethod
    def from_params(cls, head: schema.UNetHead, model: schema.Model, grid_size: tuple[int, int]) -> Self:
        """See `PatchDetailerHead.from_params`."""
        return cls(
            model.patch_size,
            model.hidden_size,
            depth=head.depth,
            width=head.width,
            grid_size=grid_size if model.head_input == "image" else None,
        )

    def forward(self, patches: Tensor, tokens: Tensor, t_emb: Tensor) -> Tensor:
        """See `PatchDetailerHead.forward`."""
        if self.grid_size is None:
            shape = patches.shape
            pixels = patches.reshape(-1, CHANNELS, self.patch_size, self.patch_size)  # (B N, 3, P, P)
            context = tokens.reshape(-1, tokens.shape[-1], 1, 1)  # (B N, D, 1, 1)
            return self.refine(pixels, context).reshape(shape)
        pixels = unpatchify(patches, self.patch_size, self.grid_size)  # (B, 3, H, W)
        context = rearrange(tokens, "b (h w) d -> b d h w", h=self.grid_size[0])
        return patchify(self.refine(pixels, context), self.patch_size)

    def refine(self, x: Tensor, context: Tensor) -> Tensor:
        """Run the U-Net.

        Args:
            x: Noisy pixels, shape (b, 3, n P, m P).
            context: One token for each P x P pixels, shape (b, D, n, m).

        Returns:
            Shape (b, 3, n P, m P).
        """
        x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for conv in self.down:
            kept, x = self.pool(F.silu(conv(x)))
            skips.append(kept)
        # ASSUMPTION: four stages for every P, as Figure 6 and Table 4 have them for P = 16; a patch that is still wider
        # than one pixel here (P = 32: 2 x 2) has its token repeated over it.
        if self.bottleneck_size > 1:
            context = F.interpolate(context, scale_factor=float(self.bottleneck_size), mode="nearest")
        x = F.silu(self.bottleneck(torch.cat([x, context], dim=1)))
        for conv in self.up:
            x = F.silu(conv(skips.pop(), below=x))
        return self.output(x)
