"""Norms, rotation and attention on a CPU in 16 bits, in float32 and in place, with their gradients.

There each operation reads and writes memory, those that mix dtypes do so twice, and PyTorch has no fused RMS norm: what
it makes of the layers takes twice as long, forward and backward (docs/performance.md).

Shapes: B batch, N tokens, h heads, d = 2 m channels of one head, D = h d.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from dip.model.layers import attend


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`dip.model.layers.RMSNorm`.

    Args:
        x: In 16 bits, shape (..., D).
        weight: float32, shape (D,).
        eps: Added to the mean of squares.

    Returns:
        Shape and dtype of x.
    """
    return _Norm.apply(x, weight, eps)


def attention(qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """Norms and rotation of `dip.model.layers.Attention`, and `attend`.

    Args:
        qkv: q, k and v of every token, in 16 bits, shape (B, N, 3, h, d).
        q_weight: Of q's RMS norm, float32, shape (d,).
        k_weight: Of k's.
        cos: Of the angles of `RotaryEmbedding2D`, float32, shape (N, m).
        sin: Likewise.
        eps: Of both norms.

    Returns:
        Shape (B, N, D), dtype of qkv.
    """
    weights = torch.stack([q_weight, k_weight])  # (2, d)
    q, k, v = _Rotation.apply(qkv, weights, torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1), eps)
    return rearrange(attend(*(x.transpose(1, 2) for x in (q, k, v))), "b h n d -> b n (h d)")


class _Norm(torch.autograd.Function):
    """y = n w with n = x s, where s = 1 / sqrt(mean(x^2) + eps)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        n = x.to(torch.float32, copy=True)
        scale = _scale(n, eps)
        ctx.save_for_backward(x, weight, scale)
        return n.mul_(scale).mul_(weight).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        grad, n = grad.to(torch.float32, copy=True), x.to(torch.float32, copy=True).mul_(scale)
        product = grad * n
        grad_weight = product.flatten(0, -2).sum(0)
        return _gradient(grad, n, product, weight, scale).to(x.dtype), grad_weight, None


class _Rotation(torch.autograd.Function):
    """q, k and v of (B, N, 3, h, d), of which q and k are normalised by `weights` and rotated.

    `cos` and `sin` (N, d) are those of a channel: y = u cos + swapped(u) sin, where u = n w and `swapped` exchanges the
    halves of the channels.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, weights: Tensor, cos: Tensor, sin: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = qkv[:, :, :2].to(torch.float32, copy=True)
        scale = _scale(n, eps)
        ctx.save_for_backward(qkv, weights, cos, sin, scale)
        own = (cos[:, None] * weights)[:, :, None]  # (N, 2, 1, d)
        other = (sin[:, None] * _swapped(weights))[:, :, None]
        turned = _swapped(n.mul_(scale)).mul_(other)
        q, k = turned.addcmul_(n, own).to(qkv.dtype).unbind(2)
        return q, k, qkv[:, :, 2].clone() if ctx.needs_input_grad[0] else qkv[:, :, 2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        qkv, weights, cos, sin, scale = ctx.saved_tensors
        rotated = torch.stack([grad_q, grad_k], dim=2).float()  # (B, N, 2, h, d)
        grad = _swapped(rotated).mul_(_swapped(sin)[:, None, None]).addcmul_(rotated, cos[:, None, None])
        n = torch.mul(qkv[:, :, :2].to(torch.float32, copy=True), scale, out=rotated)
        product = grad * n
        grad_weights = product.flatten(0, 1).sum(0).sum(1)  # all at once takes ten times as long
        result = torch.empty_like(qkv)
        result[:, :, :2] = _gradient(grad, n, product, weights[:, None], scale)
        result[:, :, 2] = grad_v
        return result, grad_weights, None, None, None


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / sqrt(mean(x^2) + eps) over the last dimension, which stays as 1."""
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()


def _gradient(grad: Tensor, n: Tensor, product: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Gradient of x, where that of n weight is `grad`; overwrites `grad` and `product`, which is grad n."""
    mean = product.mul_(weight).sum(-1, keepdim=True).div_(-n.shape[-1])
    return grad.mul_(weight).addcmul_(n, mean).mul_(scale)


def _swapped(x: Tensor) -> Tensor:
    """The halves of the last dimension exchanged."""
    return torch.cat(x.chunk(2, dim=-1)[::-1], dim=-1)
