"""The transformer's parts around its layers: patches, DiT block, final layer, initialisation (section 3.3).

Shapes: B batch, C = 3 channels, H x W image, P patch side, N = HW / P^2 patches, D hidden size.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from dip.model.layers import (
    Attention,
    LabelEmbedder,
    RMSNorm,
    RotaryEmbedding2D,
    SwiGLU,
    TimestepEmbedder,
    modulate,
)

CHANNELS = 3
"""Colour channels of an image."""


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images (B, 3, H, W) into patches (B, N, 3 P^2), row by row; inside a patch channel, row, column."""
    return rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=patch_size, q=patch_size)


def unpatchify(patches: Tensor, patch_size: int, grid_size: tuple[int, int]) -> Tensor:
    """Put patches (B, N, 3 P^2) of a grid of (H / P, W / P) patches together as images (B, 3, H, W)."""
    return rearrange(
        patches,
        "b (h w) (c p q) -> b c (h p) (w q)",
        h=grid_size[0],
        w=grid_size[1],
        p=patch_size,
        q=patch_size,
    )


class DiTBlock(nn.Module):
    """Attention and SwiGLU, each normalised, modulated by the condition and gated (adaLN)."""

    # ASSUMPTION: "DDT, a variant of DiT" (section 4.1) is read as DDT's improved DiT, without DDT's split into encoder
    # and decoder: 26 blocks of width 1152 then count 628.6M parameters, and the paper has 629M.

    def __init__(self, hidden_size: int, num_heads: int, *, qk_norm: bool = True) -> None:
        super().__init__()
        self.norm1 = RMSNorm(hidden_size)
        self.attn = Attention(hidden_size, num_heads, qk_norm=qk_norm)
        self.norm2 = RMSNorm(hidden_size)
        self.mlp = SwiGLU(hidden_size)
        self.adaLN_modulation = nn.Linear(hidden_size, 6 * hidden_size)

    def forward(self, x: Tensor, modulation: Tensor, rope: RotaryEmbedding2D) -> Tensor:
        """One block.

        Args:
            x: Tokens, shape (B, N, D).
            modulation: What `adaLN_modulation` makes of SiLU(t_emb + y_emb), shape (B, 1, 6 D).
            rope: Positions of the N tokens.

        Returns:
            Tokens, shape (B, N, D).
        """
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = modulation.chunk(6, dim=-1)  # (B, 1, D) each
        x = x + gate_msa * self.attn(modulate(self.norm1(x), shift_msa, scale_msa), rope)
        return x + gate_mlp * self.mlp(modulate(self.norm2(x), shift_mlp, scale_mlp))


class FinalLayer(nn.Module):
    """LayerNorm without weights -> modulation -> Linear to pixels: how a model without a head ends."""

    def __init__(self, hidden_size: int, patch_size: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(hidden_size, CHANNELS * patch_size**2)
        self.adaLN_modulation = nn.Linear(hidden_size, 2 * hidden_size)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """Map tokens (B, N, D) and what `adaLN_modulation` puts out, (B, 1, 2 D), to patches (B, N, 3 P^2)."""
        shift, scale = modulation.chunk(2, dim=-1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


def initialize_linear(linear: nn.Linear) -> None:
    """Xavier-uniform weight and zero bias."""
    nn.init.xavier_uniform_(linear.weight)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def initialize_embedders(t_embedder: TimestepEmbedder, y_embedder: LabelEmbedder, label_std: float) -> None:
    """Normal weights: standard deviation 0.02 for the timestep (DiT, DDT), `label_std` for the labels."""
    for layer in t_embedder.mlp:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    nn.init.normal_(y_embedder.embedding_table.weight, std=label_std)


def initialize_block(block: DiTBlock | FinalLayer) -> None:
    """Xavier for the linear layers and zero for the modulation; a final layer also puts out zero.

    With zero modulation every block starts as the identity ("adaLN-Zero" of DiT).
    """
    # ASSUMPTION: the paper names no initialisation. DiT's is used throughout the backbone; DDT leaves the
    # blocks at PyTorch's default and zeroes only its final layer.
    for module in block.modules():
        if isinstance(module, nn.Linear):
            initialize_linear(module)
    nn.init.zeros_(block.adaLN_modulation.weight)
    if isinstance(block, FinalLayer):
        nn.init.zeros_(block.linear.weight)
