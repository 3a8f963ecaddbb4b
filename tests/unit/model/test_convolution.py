"""Convolutions without the needless arithmetic, against the usual way, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compiler import needs_compiler
from dip.model.convolution import (
    AveragePool,
    OutputConv,
    PatchConv,
    convolved_columns,
    convolved_pixels,
    padded,
    set_plain,
)
from dip.model.head_unet import UNetHead


def random(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator).contiguous(memory_format=torch.channels_last)


def both_ways(conv: PatchConv, *maps: torch.Tensor) -> None:
    """Output and all gradients must be equal, and stay so once the weights are fixed."""
    results = []
    for plain in (True, False):
        set_plain(conv, plain=plain)
        inputs = [x.clone().requires_grad_() for x in maps]
        output = conv(*inputs)
        output.square().sum().backward()
        results.append([output, *(x.grad for x in inputs), conv.weight.grad, conv.bias.grad])
        conv.zero_grad()
    for usual, merged in zip(*results, strict=True):
        torch.testing.assert_close(merged, usual)
    conv.freeze(torch.float64)
    torch.testing.assert_close(conv(*maps), results[0][0])


@pytest.mark.parametrize("side", [2, 4, 6])
def test_convolution_of_a_patch(side: int) -> None:
    """Wrong: a tap of a 2 x 2 map would meet another pixel, or a gradient would be lost."""
    both_ways(PatchConv(3, 5).double(), random(4, 3, side, side))


@pytest.mark.parametrize("side", [1, 2, 4])
def test_upsampled_convolution(side: int) -> None:
    """Wrong: taps would be added up for another phase, or the skip would be shifted."""
    both_ways(PatchConv(2, 5, below=3).double(), random(4, 2, 2 * side, 2 * side), random(4, 3, side, side))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pooling_of_a_map_that_is_kept(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """Wrong: a mean's gradient would come to the pixels of another, or that of the skip be lost; to the bit."""
    results, pool = [], AveragePool()
    for plain in (True, False):
        set_plain(pool, plain=plain)
        x = random(3, 5, 4, 6).to(dtype).contiguous(memory_format=layout).requires_grad_()
        kept, means = pool(x)
        outputs, grads = (kept, means), (random(3, 5, 4, 6).to(dtype), random(3, 5, 2, 3).to(dtype))
        results.append((*outputs, *torch.autograd.grad(outputs, x, grads, retain_graph=True),
                        *torch.autograd.grad(kept, x, grads[0], retain_graph=True),
                        *torch.autograd.grad(means, x, grads[1])))  # fmt: skip
    for usual, own in zip(*results, strict=True):
        torch.testing.assert_close(own, usual, rtol=0, atol=0)


@pytest.mark.slow
@needs_compiler
def test_compiled_head_learns_the_same() -> None:
    """Wrong: compiled, the weights of a map of 2 x 2 or a pooled map would take other gradients."""
    torch.manual_seed(0)
    head = UNetHead(4, 8, depth=2, width=4).double()
    patches, tokens = torch.randn(2, 3, 48).double(), torch.randn(2, 3, 8).double().requires_grad_()
    results = []
    for run in (head, torch.compile(head, fullgraph=True)):
        loss = run(patches, tokens, tokens).square().mean()
        results.append((loss, *torch.autograd.grad(loss, [tokens, *head.parameters()])))
    torch.testing.assert_close(*results)


def test_few_channels() -> None:
    """Wrong: on a GPU, whose ways these are, colours would come from other pixels or channels."""
    first, x = PatchConv(3, 5).double(), random(4, 3, 6, 4)
    for weight in (first.weight.flatten(1), padded(first.weight.flatten(1), dim=1)):
        equal_with_gradients(convolved_columns(x, weight, first.bias), first(x), first)
    last, x = OutputConv(5, 3).double(), random(4, 5, 6, 4)
    equal_with_gradients(convolved_pixels(x, last.weight.flatten(1), last.bias), last(x), last)
    assert padded(first.weight.flatten(1), dim=1).shape == (5, 32)


def equal_with_gradients(own: torch.Tensor, usual: torch.Tensor, conv: nn.Conv2d) -> None:
    results = [(y, *torch.autograd.grad(y.square().sum(), [conv.weight, conv.bias])) for y in (own, usual)]
    torch.testing.assert_close(*results)


def test_maps_that_are_not_square() -> None:
    """Wrong: an image of 16 x 32 pixels under a head with image-level input would be taken for patches."""
    both_ways(PatchConv(3, 5).double(), random(2, 3, 2, 4))
    both_ways(PatchConv(2, 5, below=3).double(), random(2, 2, 2, 4), random(2, 3, 1, 2))


def test_weights_that_change_are_seen_until_they_are_fixed() -> None:
    """Wrong: a training would go on with the weights of its first step."""
    conv, x = PatchConv(3, 5).double(), random(4, 3, 2, 2)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(2)
        conv.bias.mul_(2)
    torch.testing.assert_close(conv(x), 2 * before)


def test_names_of_parameters_are_those_of_convolutions() -> None:
    """Wrong: checkpoints made before would not load."""
    names = [name for name, _ in nn.ModuleList([PatchConv(3, 5), PatchConv(2, 5, below=3)]).named_parameters()]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias"]
