"""How fast a model computes, by name; the results are the same to rounding.

- plain: layers as the field writes them.
- fast: arithmetic that is not needed is left out (`dip.model.convolution`); sampling does more (`dip.sampling.fast`).
- compiled: fast, with blocks and heads by torch.compile.
"""

from __future__ import annotations

import torch

from dip.model import DiP
from dip.model.convolution import set_plain

SPEEDS = ("plain", "fast", "compiled")


def default_speed(device: torch.device) -> str:
    """Compiled on a GPU; fast on a CPU, where a compiler may be missing and takes a minute."""
    return "compiled" if device.type == "cuda" else "fast"


def set_speed(model: DiP, speed: str | None) -> str:
    """Have a model compute at a speed.

    Args:
        model: On its device. It keeps its weights and their names.
        speed: One of `SPEEDS`, or None for the device's default.

    Returns:
        The speed.

    Raises:
        ValueError: No such speed.
    """
    speed = speed or default_speed(next(model.parameters()).device)
    if speed not in SPEEDS:
        raise ValueError(f"unknown speed '{speed}', expected one of {', '.join(SPEEDS)}")
    set_plain(model, plain=speed == "plain")
    if speed == "compiled":
        for module in (*model.blocks, model.head, model.intermediate):  # blocks are alike: one compilation serves all
            if module is not None:
                module.compile()
    return speed
