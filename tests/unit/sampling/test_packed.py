"""Products with weights in oneDNN's layout are those of the layers that they stand for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dip.model.layers import SwiGLU
from dip.sampling.packed import PackedLinear, PackedSwiGLU, can_pack

DTYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(not can_pack(dtype), reason=f"this CPU does not pack {dtype}"))
    for dtype in (torch.float32, torch.bfloat16)
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (0, 7)])
@torch.inference_mode()
def test_a_packed_product_is_that_of_the_layer(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    """Wrong: sizes that fill no block of the layout, or a batch of none, would be multiplied with what lies beyond."""
    torch.manual_seed(0)
    linear = nn.Linear(7, 5, bias=bias).to(dtype)
    packed = PackedLinear(linear)
    x, gate = torch.randn(shape).to(dtype), torch.randn(*shape[:-1], 5).to(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    torch.testing.assert_close(packed(x), linear(x), **tolerance)
    torch.testing.assert_close(packed(x, silu=True), F.silu(linear(x)), **tolerance)
    torch.testing.assert_close(packed(x, gate=gate), linear(x) * gate, **tolerance)
    columns = torch.randn(7, 4).to(dtype).T
    torch.testing.assert_close(packed(columns), linear(columns), **tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_the_feed_forward_gates_w3_with_w1(dtype: torch.dtype) -> None:
    """Wrong: SiLU would be applied to the half that is gated."""
    torch.manual_seed(0)
    mlp = SwiGLU(24).to(dtype)
    x = torch.randn(2, 5, 24).to(dtype)
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 1e-2}
    torch.testing.assert_close(PackedSwiGLU(mlp)(x), mlp(x), **tolerance)


@pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch was built without oneDNN")
def test_weights_that_are_missing_are_named() -> None:
    """Wrong: a file without them would be a KeyError, or the weights that were there before would stay unnoticed."""
    packed = PackedLinear(nn.Linear(7, 5))
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "bias"'):
        packed.load_state_dict({"weight": torch.ones(5, 7)})
