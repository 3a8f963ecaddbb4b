"""Products of a sampler on a CPU, with weights in the layout that oneDNN multiplies.

`F.linear` lays its weight out anew in every call, which for some hundred tokens takes a sixth to a third as long as
the product. Here that is done once, and SiLU and the gate of the feed-forward are applied while a product is written.

Shapes: B batch, N tokens, D hidden size, K inputs, O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from dip.model import DiP
from dip.model.backbone import DiTBlock
from dip.model.layers import SwiGLU


class PackedLinear(nn.Module):
    """An `nn.Linear` that no longer learns, in the dtype of its weights; what is loaded into it is laid out anew."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._dtype = linear.weight.dtype
        self._pack(linear.weight, linear.bias)

    def forward(self, x: Tensor, *, gate: Tensor | None = None, silu: bool = False) -> Tensor:
        """Map x of shape (..., K) to (..., O), and apply SiLU or multiply with `gate` of shape (..., O)."""
        return packed_linear(x.to(self._dtype), self._weight, self._bias, gate, silu)

    @torch.no_grad()
    def _pack(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(self._dtype))
        self._bias = None if bias is None else bias.detach().to(self._dtype, copy=True)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str], *_: Any
    ) -> None:
        names = [f"{prefix}weight", *([] if self._bias is None else [f"{prefix}bias"])]
        if absent := [name for name in names if name not in state_dict]:
            missing.extend(absent)
        else:
            self._pack(*[state_dict[name] for name in names])


class PackedSwiGLU(nn.Module):
    """`SwiGLU` of packed products."""

    def __init__(self, mlp: SwiGLU) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = (PackedLinear(linear) for linear in (mlp.w1, mlp.w2, mlp.w3))

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (B, N, D) to the same shape."""
        return self.w2(self.w3(x, gate=self.w1(x, silu=True)))


# torch.compile takes oneDNN's own operator with constant weights only, and would compile every block for itself.
@torch.library.custom_op("dip::packed_linear", mutates_args=())
def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None, gate: Tensor | None, silu: bool) -> Tensor:
    """Product with a packed weight; see `PackedLinear.forward`."""
    if gate is not None:
        return torch.ops.mkldnn._linear_pointwise.binary(x, gate, weight, bias, "mul")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "swish" if silu else "none", [], "")


@packed_linear.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch and processor multiply packed weights of a dtype."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(model: DiP) -> None:
    """Pack the weights of all blocks, which are not held a second time; those of the conditioning stay as they are."""
    for block in cast("Iterable[DiTBlock]", model.blocks):
        if isinstance(block.mlp, SwiGLU):  # not packed already
            block.attn.register_module("qkv", PackedLinear(block.attn.qkv))
            block.attn.register_module("proj", PackedLinear(block.attn.proj))
            block.register_module("mlp", PackedSwiGLU(block.mlp))
