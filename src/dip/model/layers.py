"""Layers of the transformer: normalisation, embeddings, attention with 2-D rotary positions, feed-forward.

The architecture is the improved DiT of DDT (github.com/MCG-NJU/DDT, `improved_dit.py`), on which DiP builds;
parameters keep DDT's names.

Shapes: B batch, N tokens, D hidden size, h heads, d = D / h channels of one head.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_MOST_SEQUENCES = 2**16 - 1  # of one call: CUDA has no larger second and third dimension of a grid of blocks


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Adaptive affine map of DiT: x (1 + scale) + shift.

    Args:
        x: Tokens, shape (B, N, D).
        shift: Shape (B, 1, D).
        scale: Shape (B, 1, D); 0 leaves x as it is.

    Returns:
        Modulated tokens, shape (B, N, D).
    """
    return x * (1 + scale) + shift


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; the mean is taken in float32 or wider."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.kernel: Callable[..., Tensor] | None = None  # in its place for 16 bits

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x of shape (..., size); shape and dtype stay."""
        if self.kernel is not None and x.element_size() == 2:
            return self.kernel(x, self.weight, self.eps)
        # The weight in x's dtype keeps the fused kernel under autocast.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


def timestep_embedding(t: Tensor, size: int, max_period: float = 10.0) -> Tensor:
    """Sinusoids of t: [cos(t f_k), sin(t f_k)] with f_k = max_period^(-k / (size / 2)).

    Args:
        t: Times in [0, 1], shape (B,), float32 or float64.
        size: Number of features, even.
        max_period: 2 pi times this is the longest period; 10 suits t in [0, 1] (DDT).

    Returns:
        Features in [-1, 1], shape (B, size), dtype of t.
    """
    exponents = torch.arange(size // 2, dtype=t.dtype, device=t.device) / (size // 2)
    angles = t[:, None] * torch.exp(-math.log(max_period) * exponents)  # (B, size / 2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimestepEmbedder(nn.Module):
    """256 sinusoids of t -> Linear -> SiLU -> Linear."""

    def __init__(self, hidden_size: int, num_frequencies: int = 256) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.mlp = nn.Sequential(
            nn.Linear(num_frequencies, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Embed times t in [0, 1] of shape (B,) as (B, D)."""
        # bfloat16 resolves only 1/256 just below t = 1, so the sinusoids are never computed in it.
        t = t.to(torch.promote_types(t.dtype, torch.float32))
        features = timestep_embedding(t, self.num_frequencies)  # (B, num_frequencies)
        return self.mlp(features.to(next(self.mlp.parameters()).dtype))


class LabelEmbedder(nn.Module):
    """One learned vector per class and one more, the last, for "no class" (classifier-free guidance)."""

    def __init__(self, num_classes: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, hidden_size)

    def forward(self, y: Tensor) -> Tensor:
        """Embed labels y in [0, num_classes], int64 of shape (B,), as (B, D)."""
        return self.embedding_table(y)


def rotary_angles(height: int, width: int, head_size: int, *, theta: float = 10000.0, scale: float = 16.0) -> Tensor:
    """Angles of 2-D rotary positions (DDT): half of the planes turn with the column, half with the row.

    Positions are linspace(0, scale) along each axis, so that images of every size span the same range.

    Args:
        height: Rows of the token grid.
        width: Columns of the token grid.
        head_size: Channels of one head, divisible by 4.
        theta: Base of the frequencies theta^(-4 k / head_size), k < head_size / 4.
        scale: Position of the last row and column.

    Returns:
        Angles in radians, float64, shape (height * width, head_size / 2), ordered column f_0, row f_0,
        column f_1, ...

    Raises:
        ValueError: head_size is not divisible by 4.
    """
    if head_size % 4:
        raise ValueError(
            "2-D rotary positions need a hidden size divisible by 4 x the number of attention heads; here "
            f"hidden size / number of heads = {head_size}"
        )
    double = torch.float64
    frequencies = theta ** (-torch.arange(0, head_size, 4, dtype=double) / head_size)
    rows, columns = torch.meshgrid(
        torch.linspace(0, scale, height, dtype=double),
        torch.linspace(0, scale, width, dtype=double),
        indexing="ij",
    )
    positions = torch.stack([columns.flatten(), rows.flatten()], dim=-1)  # (N, 2)
    return (positions[:, None, :] * frequencies[:, None]).flatten(1)  # (N, head_size / 2)


class RotaryEmbedding2D(nn.Module):
    """Rotates channel j and channel j + d / 2 of a head as one plane, by `rotary_angles`.

    DDT pairs neighbouring channels 2j and 2j + 1, as complex numbers. Halves are the same map up to the order
    of the channels of q and k; real-valued they run in bfloat16 and compiled, at half the cost of neighbours.
    """

    def __init__(self, height: int, width: int, head_size: int) -> None:
        super().__init__()
        angles = rotary_angles(height, width, head_size)[:, None]
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos().float(), persistent=False)  # (N, 1, d / 2)
        self.register_buffer("sin", angles.sin().float(), persistent=False)  # (N, 1, d / 2)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Cosine and sine of the angles, each (N, d / 2)."""
        return self.cos[:, 0], self.sin[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        """Rotate queries or keys x of shape (B, N, h, d); shape and dtype stay."""
        first, second = x.chunk(2, dim=-1)
        turned = first * self.cos - second * self.sin, second * self.cos + first * self.sin
        return torch.cat(turned, dim=-1).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v for each head.

    Args:
        q: Queries, shape (B, h, N, d).
        k: Keys, likewise.
        v: Values, likewise.

    Returns:
        Shape (B, h, N, d).
    """
    # On CPU in bfloat16 the fused kernel's backward pass takes 5 times as long as the plain products do for short
    # sequences, a quarter of a training step on small images (measured with torch 2.15).
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[-2] <= 64:
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)  # (B, h, N, N)
        return weights.to(v.dtype) @ v
    if q.shape[0] > _MOST_SEQUENCES:  # FlashAttention fails; an attention head has a sequence for each patch of a batch
        parts = zip(*(tensor.split(_MOST_SEQUENCES) for tensor in (q, k, v)), strict=True)
        return torch.cat([F.scaled_dot_product_attention(*part) for part in parts])
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """Multi-head self-attention with RMS-normalised queries and keys and rotary positions."""

    def __init__(self, hidden_size: int, num_heads: int, *, qk_norm: bool = True) -> None:
        """Make the projections.

        Args:
            hidden_size: D.
            num_heads: h, a divisor of D.
            qk_norm: Normalise q and k per head, which keeps the attention logits bounded.

        Raises:
            ValueError: hidden_size is not divisible by num_heads.
        """
        super().__init__()
        head_size = head_size_of(hidden_size, num_heads)
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.q_norm = RMSNorm(head_size) if qk_norm else nn.Identity()
        self.k_norm = RMSNorm(head_size) if qk_norm else nn.Identity()
        self.proj = nn.Linear(hidden_size, hidden_size)
        self.kernel: Callable[..., Tensor] | None = None  # in the place of norms, rotation and `attend`, for 16 bits

    def forward(self, x: Tensor, rope: RotaryEmbedding2D) -> Tensor:
        """Attend among the tokens x of shape (B, N, D), whose N positions `rope` holds."""
        qkv = rearrange(self.qkv(x), "b n (three h d) -> b n three h d", three=3, h=self.num_heads)
        if self.kernel is not None and qkv.element_size() == 2:
            return self.proj(self.kernel(qkv, self.q_norm.weight, self.k_norm.weight, *rope.tables(), self.q_norm.eps))
        q, k, v = qkv.unbind(2)
        q, k = rope(self.q_norm(q)), rope(self.k_norm(k))
        x = attend(*(tensor.transpose(1, 2) for tensor in (q, k, v)))  # (B, h, N, d)
        return self.proj(rearrange(x, "b h n d -> b n (h d)"))


def head_size_of(hidden_size: int, num_heads: int) -> int:
    """Channels of one attention head.

    Raises:
        ValueError: hidden_size is not divisible by num_heads.
    """
    if hidden_size % num_heads:
        raise ValueError(f"hidden size {hidden_size} is not divisible by the number of attention heads {num_heads}")
    return hidden_size // num_heads


class SwiGLU(nn.Module):
    """Gated feed-forward without biases: w2(SiLU(w1 x) * w3 x), hidden width int(2/3 x 4D)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        width = 2 * 4 * hidden_size // 3
        self.w1 = nn.Linear(hidden_size, width, bias=False)
        self.w3 = nn.Linear(hidden_size, width, bias=False)
        self.w2 = nn.Linear(width, hidden_size, bias=False)
        self._w1_w3: Tensor | None = None

    @torch.no_grad()
    def freeze(self) -> None:
        """Multiply with w1 and w3 in one product from now on; they no longer learn."""
        self._w1_w3 = torch.cat([self.w1.weight, self.w3.weight])
        self.w1.weight.data, self.w3.weight.data = self._w1_w3.chunk(2)

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (..., D) to the same shape."""
        if self._w1_w3 is not None:
            gate, value = F.linear(x, self._w1_w3).chunk(2, dim=-1)
            return self.w2(F.silu(gate) * value)
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
