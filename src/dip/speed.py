"""How fast a model computes, by name; the results are the same to rounding.

- plain: layers as the field writes them.
- fast: arithmetic that is not needed is left out (`dip.model.convolution`), and on a CPU in 16 bits norms and attention
  work in place (`dip.model.in_place`); sampling does more (`dip.sampling.fast`).
- compiled: that arithmetic, blocks and heads by torch.compile, and on a GPU q and k by a kernel of our own
  (`dip.model.attention_kernels`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from typing import cast

import torch

from dip.model import DiP
from dip.model.backbone import DiTBlock
from dip.model.convolution import set_plain
from dip.model.in_place import attention, rms_norm
from dip.model.layers import Attention, RMSNorm

SPEEDS = ("plain", "fast", "compiled")


def default_speed(device: torch.device) -> str:
    """Compiled on a GPU with Triton; fast on a CPU, where a compiler may be missing and takes a minute."""
    return "compiled" if device.type == "cuda" and find_spec("triton") is not None else "fast"


def set_speed(model: DiP, speed: str | None) -> str:
    """Have a model compute at a speed.

    Args:
        model: On its device. It keeps its weights and their names.
        speed: One of `SPEEDS`, or None for the device's default.

    Returns:
        The speed.

    Raises:
        ValueError: No such speed, or on a GPU "compiled" without Triton.
    """
    speed = speed or default_speed(next(model.parameters()).device)
    if speed not in SPEEDS:
        raise ValueError(f"unknown speed '{speed}', expected one of {', '.join(SPEEDS)}")
    set_plain(model, plain=speed == "plain")
    on_gpu = next(model.parameters()).is_cuda
    needs_triton = speed == "compiled" and on_gpu
    if needs_triton and find_spec("triton") is None:
        raise ValueError("the speed 'compiled' needs Triton on a GPU, and it is not installed; take 'fast'")
    _set_kernels(model, triton=needs_triton, in_place=speed == "fast" and not on_gpu)
    for module in (*model.blocks, model.head, model.intermediate):  # blocks are alike: one compilation serves all
        if module is not None:
            module._compiled_call_impl = None
            if speed == "compiled":
                # On a GPU every batch size has kernels of its own, which are faster; torch stops at 8 of them.
                torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
                module.compile(dynamic=False if on_gpu else None)
    return speed


def _set_kernels(model: DiP, *, triton: bool, in_place: bool) -> None:
    """What does norms, and attention with normalised q and k, where they are in 16 bits; else the layers as written."""
    for module in model.modules():
        if isinstance(module, RMSNorm):
            module.kernel = rms_norm if in_place else None
        elif isinstance(module, Attention) and isinstance(module.q_norm, RMSNorm):
            module.kernel = attention if in_place else None
    if triton:
        kernel = import_module("dip.model.attention_kernels").attention
        for block in cast("Iterable[DiTBlock]", model.blocks):
            if isinstance(block.attn.q_norm, RMSNorm):
                block.attn.kernel = kernel
