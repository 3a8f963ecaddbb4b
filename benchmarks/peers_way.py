"""This project's model and sampler as DDT, PixNerd and DeCo write them, with the same samples.

B batch, N tokens, h heads, d channels of one head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dip.diffusion.evaluations import is_guided
from dip.diffusion.sampler import guided, integrate
from dip.model import DiP
from dip.model.layers import Attention, RMSNorm, RotaryEmbedding2D
from dip.precision import autocast

if TYPE_CHECKING:
    from dip.schema import Sampling


def as_peers_write(model: DiP) -> None:
    """Have a model compute its layers as DDT, PixNerd and DeCo write them, with the same velocities to rounding.

    Norms in float32 and in single operations; rotations of neighbouring channels as complex float32 numbers; q, k and v
    copied into the order of heads. Patches and convolutions stay as this project lays them out.
    """
    for module in model.modules():
        if isinstance(module, RotaryEmbedding2D):
            module.turns = torch.complex(module.cos, module.sin)  # (N, 1, d / 2)
        elif isinstance(module, RMSNorm):
            module.forward = functools.partial(_norm, module)
        elif isinstance(module, Attention):
            _pair_neighbours(module)
            module.forward = functools.partial(_attention, module)


@torch.inference_mode()
def sample_as_peers(model: nn.Module, x_0: Tensor, y: Tensor, sampling: Sampling, null_class: int) -> Tensor:
    """`dip.diffusion.sampler.sample` with an unconditional pass in every step, weighted 0 outside the interval."""
    labels = torch.cat([y, torch.full_like(y, null_class)])

    def velocity(x_t: Tensor, t: float) -> Tensor:
        both = model(torch.cat([x_t, x_t]), torch.full((len(labels),), t, device=x_t.device), labels)
        return guided(both, sampling.cfg_scale if is_guided(sampling, t) else 1.0)

    return integrate(velocity, x_0, sampling)


def draw_as_peers(model: DiP, x_0: Tensor, y: Tensor, sampling: Sampling) -> Callable[[], object]:
    """What draws images of x_0, (B, 3, H, W), as the peers do, with a model that is already as they write it."""

    def draw() -> None:
        with autocast(sampling.precision, x_0.device):
            sample_as_peers(model, x_0, y, sampling, model.num_classes)

    return draw


def _norm(norm: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
    return (norm.weight * wide).to(x.dtype)


def _attention(attention: Attention, x: Tensor, rope: RotaryEmbedding2D) -> Tensor:
    q, k, v = rearrange(attention.qkv(x), "b n (three h d) -> three b n h d", three=3, h=attention.num_heads)
    q, k = (_rotate(tensor, rope.turns) for tensor in (attention.q_norm(q), attention.k_norm(k)))
    q, k, v = q.transpose(1, 2), k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()
    x = F.scaled_dot_product_attention(q, k, v)
    return attention.proj(rearrange(x, "b h n d -> b n (h d)"))


def _rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate x of shape (B, N, h, d) by unit complex numbers of shape (N, 1, d / 2)."""
    planes = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(planes * turns).flatten(-2).to(x.dtype)


@torch.no_grad()
def _pair_neighbours(attention: Attention) -> None:
    """Put the channels of q and k that turn together side by side: 0, d / 2, 1, d / 2 + 1, ..."""
    size = attention.qkv.in_features // attention.num_heads
    order = torch.arange(size).view(2, -1).T.flatten()
    weight = attention.qkv.weight.unflatten(0, (3, attention.num_heads, size))
    weight[:2] = weight[:2, :, order].clone()
    for norm in (attention.q_norm, attention.k_norm):
        if isinstance(norm, RMSNorm):
            norm.weight.copy_(norm.weight[order].clone())
