"""Attention by Triton is attention by PyTorch's operations, to rounding; without a GPU in Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dip.model.backbone import DiTBlock
from dip.model.layers import RotaryEmbedding2D

# Odd numbers of heads, channels, rows and images: nothing fills its tile. (images, side of the grid, heads, channels)
SHAPES = [(2, 4, 2, 16), (3, 3, 3, 20), (1, 5, 1, 72), (5, 1, 2, 8)]


def block_of(heads: int, channels: int, device: str) -> DiTBlock:
    """A DiT block in which everything has a say."""
    torch.manual_seed(0)
    block = DiTBlock(heads * channels, heads)
    for parameter in block.parameters():
        nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.1)
    return block.to(device)


def pass_through(
    block: DiTBlock, images: int, side: int, heads: int, channels: int, dtype: torch.dtype
) -> list[Tensor]:
    """Output without and with gradients, and the gradients, float32."""
    device = next(block.parameters()).device
    torch.manual_seed(1)
    size = heads * channels
    rope = RotaryEmbedding2D(side, side, channels).to(device)
    x, modulation = torch.randn(images, side**2, size).to(device), torch.randn(images, 1, 6 * size).to(device)
    with torch.autocast(device.type, dtype):
        with torch.no_grad():
            quick = block(x, modulation, rope)
        output = block(x.requires_grad_(), modulation, rope)
    names = [name for name, parameter in block.named_parameters() if "adaLN" not in name]
    gradients = torch.autograd.grad(output.square().mean(), [x, *map(block.get_parameter, names)])
    return [tensor.detach().float() for tensor in (quick, output, *gradients)]


def compare(device: str, dtype: torch.dtype) -> None:
    """Norms of what differs, against what PyTorch's operations give in float32."""
    from dip.model.attention_kernels import attention

    for shape in SHAPES:
        block = block_of(*shape[2:], device)
        exact = pass_through(block, *shape, torch.float32)
        usual = pass_through(block, *shape, dtype)
        block.attn.kernel = attention
        ours = pass_through(block, *shape, dtype)
        for own, other, true in zip(ours, usual, exact, strict=True):
            assert (own - true).norm() < 1.3 * (other - true).norm() + 2e-3 * true.norm(), shape


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    """Wrong: what is trained or sampled on a GPU would be another model."""
    compare("cuda", dtype)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_in_the_interpreter() -> None:
    """Wrong: as on a GPU."""
    code = "import torch, test_attention_kernels; test_attention_kernels.compare('cpu', torch.float16)"
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
