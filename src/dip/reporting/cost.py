"""Cost of a forward pass, counted without running it.

Shapes: B batch, H x W image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dip.model.convolution import set_plain


def forward_gflops(build: Callable[[], nn.Module], image_size: int) -> float:
    """Count the operations of one forward pass on one image.

    Matrix products, convolutions and attention are counted, a multiply-add as two operations; element-wise
    work is not. The model is made and run on torch's meta device, so that no memory is used and the largest
    model takes a second.

    Args:
        build: Makes the model, which is called as `model(x_t, t, y)` with x_t of shape (1, 3, H, W), t (1,) and
            y (1,), for example `lambda: build_model(run.model, 256, 1000)`.
        image_size: H = W in pixels.

    Returns:
        10^9 floating-point operations.

    Raises:
        ValueError: The image size is not positive.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1 pixel, got {image_size}")
    with torch.device("meta"):
        model = build().eval()
        set_plain(model, plain=True)  # as the paper and the peers count
        x_t = torch.zeros(1, 3, image_size, image_size)  # (B, 3, H, W)
        t = torch.zeros(1)  # (B,)
        y = torch.zeros(1, dtype=torch.int64)  # (B,)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x_t, t, y)
    return counter.get_total_flops() / 1e9
