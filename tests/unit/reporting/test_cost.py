"""Counted operations equal those counted by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dip.reporting.cost import forward_gflops


class _Small(nn.Module):
    """A convolution to patches, attention between them with two heads, and a linear layer of the condition."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, kernel_size=4, stride=4)
        self.condition = nn.Linear(8, 16)
        self.labels = nn.Embedding(11, 8)
        self.qkv = nn.Linear(16, 48, bias=False)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        tokens = self.patches(x_t).flatten(2).transpose(1, 2)  # (B, N, 16)
        tokens = tokens + self.condition(self.labels(y) * t[:, None])[:, None]
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)  # (3, B, 2, N, 8)
        return F.scaled_dot_product_attention(q, k, v)


def test_hand_computed() -> None:
    """Attention or a convolution is left out, or a multiply-add counts as one."""
    n = (32 // 4) ** 2
    convolution = n * 16 * (3 * 4 * 4)
    condition = 8 * 16
    qkv = n * 16 * 48
    attention = 2 * (2 * n * n * 8)  # q k and weights v, two heads of 8 channels
    assert forward_gflops(_Small, 32) == pytest.approx(2 * (convolution + condition + qkv + attention) / 1e9, rel=1e-12)


def test_takes_no_memory() -> None:
    """The weights of a large model are made: these would be 4 TB."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(10**6, 10**6)

        def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return self.layer(torch.zeros(1, 10**6, device=x_t.device))

    assert forward_gflops(Large, 32) == pytest.approx(2000)


def test_leaves_the_generator_alone() -> None:
    """Counting operations changes the numbers that the caller draws next."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    forward_gflops(_Small, 32)
    assert torch.equal(torch.rand(3), expected)


def test_bad_image_size() -> None:
    """A size of 0 gives 0 operations."""
    with pytest.raises(ValueError, match="at least 1 pixel"):
        forward_gflops(_Small, 0)
