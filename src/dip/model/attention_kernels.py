"""Attention on a GPU: norm and rotary positions of q and k in one kernel, by Triton, before PyTorch's attention.

What torch.compile makes of PyTorch's operations reads q and k several times: on an H200 it took 7.4 us a block at batch
1, as long as the attention itself, and this kernel 3.7 us (docs/performance.md).

Shapes: B batch, N tokens, h heads, d = 2 m channels of one head, D = h d.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

_TOKENS = 8  # of one program of the gradient, which leaves one sum for the weights of the norms


def attention(qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of normalised and rotated q and k, for each head.

    Args:
        qkv: q, k and v of every token, contiguous, shape (B, N, 3, h, d).
        q_weight: Of q's RMS norm, shape (d,).
        k_weight: Of k's, of the same dtype.
        cos: Of the angles that channels j and j + m turn by, float32, shape (N, m).
        sin: Likewise.
        eps: Of both norms.

    Returns:
        Shape (B, N, D), dtype of qkv.
    """
    operator = rotate_with_gradient if torch.is_grad_enabled() and qkv.requires_grad else rotate
    q, k, *copy = operator(qkv, q_weight, k_weight, cos, sin, eps)
    v = copy[0] if copy else qkv[:, :, 2]
    result = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return result.transpose(1, 2).flatten(2)


@torch.library.custom_op("dip::rotate", mutates_args=())
def rotate(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Normalised and rotated q and k, each (B, N, h, d); arguments as of `attention`."""
    q, k = _empty_parts(qkv, 2)
    _launch_forward(qkv, q_weight, k_weight, cos, sin, eps, (q, k))
    return q, k


@torch.library.custom_op("dip::rotate_with_gradient", mutates_args=())
def rotate_with_gradient(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As `rotate`, and a copy of v, so that one kernel makes the whole gradient of qkv."""
    q, k, v = _empty_parts(qkv, 3)
    _launch_forward(qkv, q_weight, k_weight, cos, sin, eps, (q, k, v))
    return q, k, v


@torch.library.custom_op("dip::rotate_backward", mutates_args=())
def _rotate_backward(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float,
    grad_q: Tensor, grad_k: Tensor, grad_v: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradients of qkv, and of both weights as one tensor (2, d) in float32."""
    batch, tokens, _, heads, size = qkv.shape
    grad = torch.empty_like(qkv)
    programs = triton.cdiv(batch * tokens, _TOKENS)
    sums = qkv.new_empty(programs, 2, size, dtype=torch.float32)
    _gradient[(programs, 3)](
        qkv, q_weight, k_weight, cos, sin, grad_q.contiguous(), grad_k.contiguous(), grad_v.contiguous(), grad, sums,
        batch * tokens, tokens, eps, **_sizes(heads, size), TOKENS=_TOKENS, num_warps=2,
    )  # fmt: skip
    return grad, sums.sum(0)


@rotate.register_fake
def _(qkv: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(_empty_parts(qkv, 2))


@rotate_with_gradient.register_fake
def _(qkv: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(_empty_parts(qkv, 3))


@_rotate_backward.register_fake
def _(qkv: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return torch.empty_like(qkv), qkv.new_empty(2, qkv.shape[-1], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.eps = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    grad, sums = _rotate_backward(*tensors, ctx.eps, *gradients)
    q_weight, k_weight = tensors[1:3]
    return grad, sums[0].to(q_weight.dtype), sums[1].to(k_weight.dtype), None, None, None


rotate_with_gradient.register_autograd(_backward, setup_context=_keep)


def _empty_parts(qkv: Tensor, count: int) -> list[Tensor]:
    return [qkv.new_empty(*qkv.shape[:2], *qkv.shape[3:]) for _ in range(count)]


def _launch_forward(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, eps: float, parts: tuple[Tensor, ...]
) -> None:
    batch, tokens, _, heads, size = qkv.shape
    q, k, v = (*parts, parts[0])[:3]  # without a copy of v nothing writes to the last
    _forward[(batch * tokens, len(parts))](
        qkv, q_weight, k_weight, cos, sin, q, k, v, tokens, eps, **_sizes(heads, size), num_warps=2
    )


def _sizes(heads: int, size: int) -> dict[str, int]:
    """Heads and half of the channels, and the powers of two that hold them."""
    half = size // 2
    blocks = {"HEAD_BLOCK": triton.next_power_of_2(heads), "HALF_BLOCK": triton.next_power_of_2(half)}
    return {"HEADS": heads, "HALF": half, **blocks}


@triton.jit
def _tile(HEADS: tl.constexpr, HALF: tl.constexpr, HEAD_BLOCK: tl.constexpr, HALF_BLOCK: tl.constexpr):
    """Where the first half of each head's channels lies in a token, and which of the tile's channels there are."""
    heads = tl.arange(0, HEAD_BLOCK)[:, None]
    j = tl.arange(0, HALF_BLOCK)[None, :]
    inside = j < HALF
    return heads * 2 * HALF + j, (heads < HEADS) & inside, j, inside


@triton.jit
def _inverse_rms(a, b, eps, size: tl.constexpr):
    """1 / root mean square of each head, whose channels are two tiles; a column."""
    return tl.rsqrt((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / size + eps)[:, None]


@triton.jit
def _forward(
    qkv, q_weight, k_weight, cos, sin, q, k, v, num_tokens, eps,
    HEADS: tl.constexpr, HALF: tl.constexpr, HEAD_BLOCK: tl.constexpr, HALF_BLOCK: tl.constexpr,
):  # fmt: skip
    """q, k or v of one token: all heads, and the two halves of their channels as two tiles."""
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    size: tl.constexpr = 2 * HALF
    offsets, mask, j, inside = _tile(HEADS, HALF, HEAD_BLOCK, HALF_BLOCK)
    source = qkv + (token * 3 + part) * HEADS * size + offsets
    target = token * HEADS * size + offsets
    x_a = tl.load(source, mask=mask, other=0.0)
    x_b = tl.load(source + HALF, mask=mask, other=0.0)
    if part == 2:
        tl.store(v + target, x_a, mask=mask)
        tl.store(v + target + HALF, x_b, mask=mask)
    else:
        weight = q_weight if part == 0 else k_weight
        result = q if part == 0 else k
        c = tl.load(cos + (token % num_tokens) * HALF + j, mask=inside, other=0.0)
        s = tl.load(sin + (token % num_tokens) * HALF + j, mask=inside, other=0.0)
        w_a = tl.load(weight + j, mask=inside, other=0.0).to(tl.float32)
        w_b = tl.load(weight + HALF + j, mask=inside, other=0.0).to(tl.float32)
        a = x_a.to(tl.float32)
        b = x_b.to(tl.float32)
        scale = _inverse_rms(a, b, eps, size)
        a = a * scale * w_a
        b = b * scale * w_b
        tl.store(result + target, (a * c - b * s).to(result.dtype.element_ty), mask=mask)
        tl.store(result + target + HALF, (b * c + a * s).to(result.dtype.element_ty), mask=mask)


@triton.jit
def _gradient(
    qkv, q_weight, k_weight, cos, sin, grad_q, grad_k, grad_v, grad, sums, count, num_tokens, eps,
    HEADS: tl.constexpr, HALF: tl.constexpr, HEAD_BLOCK: tl.constexpr, HALF_BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
):  # fmt: skip
    """Gradient of q, k or v of some tokens, and their part of that of the norm's weight."""
    part = tl.program_id(1)
    size: tl.constexpr = 2 * HALF
    offsets, mask, j, inside = _tile(HEADS, HALF, HEAD_BLOCK, HALF_BLOCK)
    upstream = grad_q if part == 0 else grad_k if part == 1 else grad_v
    weight = q_weight if part == 0 else k_weight
    w_a = tl.load(weight + j, mask=inside, other=0.0).to(tl.float32)
    w_b = tl.load(weight + HALF + j, mask=inside, other=0.0).to(tl.float32)
    sum_a = tl.zeros([HEAD_BLOCK, HALF_BLOCK], tl.float32)
    sum_b = tl.zeros([HEAD_BLOCK, HALF_BLOCK], tl.float32)
    first = tl.program_id(0).to(tl.int64) * TOKENS
    for index in range(0, tl.minimum(TOKENS, count - first)):
        token = first + index
        source = upstream + token * HEADS * size + offsets
        target = (token * 3 + part) * HEADS * size + offsets
        g_a = tl.load(source, mask=mask, other=0.0)
        g_b = tl.load(source + HALF, mask=mask, other=0.0)
        if part == 2:
            tl.store(grad + target, g_a, mask=mask)
            tl.store(grad + target + HALF, g_b, mask=mask)
        else:
            c = tl.load(cos + (token % num_tokens) * HALF + j, mask=inside, other=0.0)
            s = tl.load(sin + (token % num_tokens) * HALF + j, mask=inside, other=0.0)
            a = tl.load(qkv + target, mask=mask, other=0.0).to(tl.float32)
            b = tl.load(qkv + target + HALF, mask=mask, other=0.0).to(tl.float32)
            scale = _inverse_rms(a, b, eps, size)
            a = a * scale
            b = b * scale
            d_a = g_a.to(tl.float32) * c + g_b.to(tl.float32) * s  # turned back
            d_b = g_b.to(tl.float32) * c - g_a.to(tl.float32) * s
            sum_a += d_a * a
            sum_b += d_b * b
            d_a = d_a * w_a
            d_b = d_b * w_b
            mean = (tl.sum(d_a * a, 1) + tl.sum(d_b * b, 1))[:, None] / size
            tl.store(grad + target, (scale * (d_a - a * mean)).to(grad.dtype.element_ty), mask=mask)
            tl.store(grad + target + HALF, (scale * (d_b - b * mean)).to(grad.dtype.element_ty), mask=mask)
    if part < 2:
        own = sums + (tl.program_id(0) * 2 + part) * size + j
        tl.store(own, tl.sum(sum_a, 0)[None, :], mask=inside)
        tl.store(own + HALF, tl.sum(sum_b, 0)[None, :], mask=inside)
