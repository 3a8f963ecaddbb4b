"""3 x 3 convolutions on the small maps of a patch, with the arithmetic that is not needed left out.

The paper's U-Net (section 3.4) convolves maps of 16, 8, 4 and 2 pixels a side, after nearest-neighbour upsampling on
the way up. Written as layers are usually written, a third of its products multiply padding, or add up what could be
added up in the weights:

- On a 2 x 2 map every output pixel sees every input pixel and five taps of nine are padding: one matrix product.
- Pixels that upsampling has made equal meet 9 taps in 4 groups, so the taps of a group are added first: a transposed
  convolution with a 4 x 4 kernel and stride 2. From a 1 x 1 map it is a matrix product again.
- On a GPU the three channels of colours are padded, if compiled in columns of a pixel's surroundings, and in the
  output: its matrix units take eight at a time.
- On a CPU the gradient of a pooled map is spread over its pixels in the sum with that of the map itself.

All are exact but for rounding. `plain` is the usual way, to compare with and to count operations as others do.

Shapes: b maps, C input channels, O output channels, h x w pixels; maps are channels-last in memory.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

_PIXELS = [(0, 0), (0, 1), (1, 0), (1, 1)]  # rows and columns of a 2 x 2 map
_ALIGNMENT = 8  # channels that a GPU's matrix units load at once in 16 bits; fewer go a slow way


class PatchConv(nn.Conv2d):
    """3 x 3 convolution with padding 1 of a map, or of a map and a smaller one below it that is upsampled by 2."""

    def __init__(self, channels: int, out_channels: int, *, below: int = 0) -> None:
        """Make the kernel.

        Args:
            channels: C.
            out_channels: O.
            below: Channels of the smaller map, which come first in the kernel; 0 for none.
        """
        super().__init__(below + channels, out_channels, 3, padding=1)
        self.split = (below, channels)
        self.plain = False
        self._frozen: dict[str, tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def freeze(self, dtype: torch.dtype) -> None:
        """Fix what is multiplied with; until then each call makes it anew from `weight`, as a training has to."""
        if self._frozen:
            return
        for way in ("maps", "matrix", "columns") if self.in_channels < _ALIGNMENT else ("maps", "matrix"):
            layout = torch.channels_last if way == "maps" else torch.contiguous_format
            self._frozen[way] = tuple(value.to(dtype).clone(memory_format=layout) for value in self._weights(way))

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._frozen = {}  # it was made of other weights
        super()._load_from_state_dict(*arguments)

    def forward(self, x: Tensor, below: Tensor | None = None) -> Tensor:
        """Convolve x of shape (b, C, h, w), and `below` of shape (b, C', h / 2, w / 2) if any, to (b, O, h, w)."""
        if self.plain:
            if below is not None:
                # ASSUMPTION: nearest-neighbour upsampling. The paper does not name it, and as it has no parameters
                # the counts cannot tell.
                x = torch.cat([F.interpolate(below, scale_factor=2.0, mode="nearest"), x], dim=1)
            return super().forward(x)
        way = "maps"
        if x.shape[-2:] == (2, 2):
            way = "matrix"
        elif x.is_cuda and torch.compiler.is_compiling() and below is None and self.in_channels < _ALIGNMENT:
            way = "columns"  # not else: without a compiler `unfold` starts a kernel for each map
        weights = self._frozen.get(way) or self._weights(way)
        if way == "matrix":
            rows = x.permute(0, 2, 3, 1).flatten(1)  # (b, 4 C)
            rows = rows if below is None else torch.cat([below.flatten(1), rows], dim=1)  # (b, C' + 4 C)
            return F.linear(rows, *weights).unflatten(1, (2, 2, -1)).permute(0, 3, 1, 2)
        if way == "columns":
            return convolved_columns(x, *weights)
        weight, weight_below = weights
        if below is None:
            return F.conv2d(x, weight, self.bias, padding=1)
        upsampled = F.conv_transpose2d(below, weight_below, self.bias, stride=2, padding=1)
        return upsampled + F.conv2d(x, weight, padding=1)

    def _weights(self, way: str) -> tuple[Tensor, ...]:
        """What a map is multiplied with: with bias but for "maps".

        Args:
            way: "matrix": shape (4 O, C' + 4 C), for a map of 2 x 2. "maps": kernels of the map and of that below it.
                "columns": shape (O, 9 (C' + C) and padding), for the 3 x 3 pixels around each one.
        """
        assert self.bias is not None
        if way == "columns":
            return padded(self.weight.flatten(1), dim=1), self.bias
        below, weight = self.weight.split(self.split, dim=1)
        below = upsampled_weight(below)  # (C', O, 4, 4)
        if way == "maps":
            return weight, below
        seen = below[:, :, 1:3, 1:3].permute(2, 3, 1, 0).flatten(0, 2)  # (4 O, C'), of a map of 1 x 1
        return torch.cat([seen, dense_weight(weight)], dim=1), self.bias.repeat(4)


class AveragePool(nn.Module):
    """2 x 2 average pooling of a map that is also kept, as the skip connection of a U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map x of shape (b, C, h, w), h and w even, and its means of shape (b, C, h / 2, w / 2)."""
        if self.plain or x.is_cuda or not x.requires_grad or torch.compiler.is_compiling():
            return x, F.avg_pool2d(x, 2)
        return _KeptAndPooled.apply(x)


class OutputConv(nn.Conv2d):
    """1 x 1 convolution to the few channels of a picture."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 1)
        self.plain = False

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x of shape (b, C, h, w) to (b, O, h, w)."""
        if self.plain or not x.is_cuda:
            return super().forward(x)
        assert self.bias is not None
        return convolved_pixels(x, self.weight.flatten(1), self.bias)


def set_plain(model: nn.Module, *, plain: bool) -> None:
    """Have all convolutions of a model done the usual way, or with the needless arithmetic left out."""
    for module in model.modules():
        if isinstance(module, PatchConv | AveragePool | OutputConv):
            module.plain = plain


def convolved_columns(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3 x 3 convolution with padding 1 as one product with the nine pixels around each one.

    Args:
        x: Maps, shape (b, C, h, w).
        weight: Kernel (O, 9 C), with zeros behind it or not.
        bias: Shape (O,).

    Returns:
        Shape (b, O, h, w), channels-last in memory.
    """
    columns = F.unfold(x, 3, padding=1).mT  # (b, h w, 9 C)
    columns = F.pad(columns, (0, weight.shape[1] - columns.shape[2]))
    return F.linear(columns, weight, bias).unflatten(1, x.shape[-2:]).permute(0, 3, 1, 2)


def convolved_pixels(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1 x 1 convolution of maps (b, C, h, w) with weight (O, C) and bias (O,), padded for the product."""
    product = F.linear(x.permute(0, 2, 3, 1), padded(weight, dim=0), padded(bias, dim=0))
    return product[..., : len(bias)].permute(0, 3, 1, 2)


def padded(values: Tensor, dim: int) -> Tensor:
    """Zeros behind the values of a dimension, up to a multiple of `_ALIGNMENT`."""
    missing = -values.shape[dim] % _ALIGNMENT
    return F.pad(values, (0, 0) * (values.dim() - 1 - dim) + (0, missing))


def dense_weight(weight: Tensor) -> Tensor:
    """The matrix of a 3 x 3 convolution with padding 1 on a 2 x 2 map.

    Args:
        weight: Kernel, shape (O, C, 3, 3).

    Returns:
        Shape (4 O, 4 C); pixels row by row, the channels of a pixel together.
    """
    return _Dense.apply(weight)


def upsampled_weight(weight: Tensor) -> Tensor:
    """The kernel of a transposed convolution that upsamples by 2 (nearest) and then convolves.

    Args:
        weight: Kernel of the 3 x 3 convolution, shape (O, C, 3, 3).

    Returns:
        Shape (C, O, 4, 4), for `conv_transpose2d` with stride 2 and padding 1.
    """
    for dim in (2, 3):
        first, middle, last = weight.unbind(dim)
        weight = torch.stack([last, middle + last, first + middle, first], dim)
    return weight.transpose(0, 1)


class _Dense(torch.autograd.Function):
    """`dense_weight`: by slices, which takes a fifth of the time of an index."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        taps = weight.permute(2, 3, 0, 1).contiguous()  # (3, 3, O, C)
        dense = taps.new_empty(2, 2, taps.shape[2], 2, 2, taps.shape[3])  # output pixel, O, input pixel, C
        for row, column in _PIXELS:
            dense[row, column] = _seen_from(taps, row, column).permute(2, 0, 1, 3)
        return dense.flatten(3).flatten(0, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        dense = grad.unflatten(1, (2, 2, -1)).unflatten(0, (2, 2, -1))
        taps = grad.new_zeros(3, 3, dense.shape[2], dense.shape[5])
        for row, column in _PIXELS:
            _seen_from(taps, row, column).add_(dense[row, column].permute(1, 2, 0, 3))
        return taps.permute(2, 3, 0, 1).contiguous()


class _KeptAndPooled(torch.autograd.Function):
    """`AveragePool`, of which each pixel's gradient is its own and a quarter of its mean's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, grad_pooled: Tensor) -> Tensor:
        pixels = rearrange(grad, "b c (h i) (w j) -> b h i w j c", i=2, j=2)
        means = rearrange(grad_pooled, "b c h w -> b h 1 w 1 c")
        return rearrange(torch.add(pixels, means, alpha=0.25), "b h i w j c -> b c (h i) (w j)")


def _seen_from(taps: Tensor, row: int, column: int) -> Tensor:
    """The taps (3, 3, ...) that the four pixels of a 2 x 2 map meet for one pixel of the output, shape (2, 2, ...)."""
    return taps[1 - row : 3 - row, 1 - column : 3 - column]
