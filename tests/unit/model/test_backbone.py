"""Patches, the DiT block and the final layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from dip.model.backbone import DiTBlock, FinalLayer, initialize_block, patchify, unpatchify
from dip.model.layers import RotaryEmbedding2D, modulate


def test_patches_are_cut_as_unfold_does_and_go_back() -> None:
    """Wrong: patches transposed or channels mixed; published weights would see scrambled pixels."""
    images = torch.randn(2, 3, 8, 12)
    patches = patchify(images, 4)
    torch.testing.assert_close(patches, F.unfold(images, 4, stride=4).transpose(1, 2), rtol=0, atol=0)
    torch.testing.assert_close(unpatchify(patches, 4, (2, 3)), images, rtol=0, atol=0)


def test_block_starts_as_the_identity() -> None:
    """Wrong: adaLN-Zero lost, deep models would start far from the data."""
    block = DiTBlock(16, 2)
    initialize_block(block)
    x = torch.randn(2, 4, 16)
    modulation = block.adaLN_modulation(torch.randn(2, 1, 16))
    torch.testing.assert_close(block(x, modulation, RotaryEmbedding2D(2, 2, 8)), x, rtol=0, atol=0)


def test_block_modulates_and_gates_each_branch() -> None:
    """Wrong: shift, scale and gate in another order than DDT's, or a branch without its gate."""
    block, rope = DiTBlock(16, 2).double(), RotaryEmbedding2D(2, 2, 8).double()
    x, condition = torch.randn(2, 4, 16).double(), torch.randn(2, 1, 16).double()
    shift1, scale1, gate1, shift2, scale2, gate2 = (
        F.linear(condition, weight, bias)
        for weight, bias in zip(
            block.adaLN_modulation.weight.split(16), block.adaLN_modulation.bias.split(16), strict=True
        )
    )
    middle = x + gate1 * block.attn(modulate(block.norm1(x), shift1, scale1), rope)
    expected = middle + gate2 * block.mlp(modulate(block.norm2(middle), shift2, scale2))
    torch.testing.assert_close(block(x, block.adaLN_modulation(condition), rope), expected)


def test_final_layer_starts_at_zero_and_normalises() -> None:
    """Wrong: DiT-only would not start from a prediction of zero, or would pass on the scale of its tokens."""
    layer = FinalLayer(16, 4)
    initialize_block(layer)
    x, modulation = torch.randn(2, 5, 16), layer.adaLN_modulation(torch.randn(2, 1, 16))
    assert not layer(x, modulation).any()
    torch.nn.init.normal_(layer.linear.weight)
    output = layer(x, modulation)
    assert output.shape == (2, 5, 48)
    torch.testing.assert_close(layer(10 * x + 3, modulation), output, rtol=1e-3, atol=1e-3)


def test_final_layer_is_the_formula() -> None:
    """Wrong: another order of shift and scale, or another epsilon than DDT's, which small tokens would feel."""
    layer = FinalLayer(8, 2).double()
    x = 1e-3 * torch.randn(2, 3, 8, dtype=torch.float64)
    shift, scale = torch.randn(2, 1, 16, dtype=torch.float64).chunk(2, dim=-1)
    normal = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(layer(x, torch.cat([shift, scale], -1)), layer.linear(normal * (1 + scale) + shift))
