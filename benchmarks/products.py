"""The bare matrix products and convolutions of some work: recorded while it is done, then done again alone.

Their time is the limit that the work is compared with: what is above it is spent on norms, activations, copies and
starting kernels. The two products of an attention are taken as products.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

_PRODUCTS = {
    torch.ops.aten.mm,
    torch.ops.aten.addmm,
    torch.ops.aten.bmm,
    torch.ops.aten.matmul,  # in inference mode these two are not taken apart
    torch.ops.aten.linear,
    torch.ops.aten.convolution,
    torch.ops.aten.convolution_backward,
}


class Like:
    """Shape, layout and dtype of a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.key = tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device

    def make(self) -> Tensor:
        """A tensor with random values."""
        shape, stride, dtype, device = self.key
        return torch.empty_strided(shape, stride, dtype=dtype, device=device).normal_()


class Products(TorchDispatchMode):
    """Records products while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._calls: dict[str, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call and pass it on."""
        name = func.overloadpacket
        if name in _PRODUCTS:
            self._note(func, args)
        elif str(name) == "dip.packed_linear":  # the layout of its weight is no part of the bare product
            x, weight, bias = args[:3]
            self._note(torch.ops.aten.linear.default, (x, weight.to_dense(), bias))
        elif "scaled_dot_product" in str(name):
            grad, q, k, v = args[:4] if "backward" in str(name) else (None, *args[:3])
            self._note(_attention_backward if grad is not None else _attention, (q, k, v))
        return func(*args, **(kwargs or {}))

    def _note(self, func: Any, args: Any) -> None:
        args = tree_map(lambda value: Like(value) if isinstance(value, Tensor) else value, args)
        key = str((func, tree_map(lambda value: value.key if isinstance(value, Like) else value, args)))
        self.counts[key] += 1
        self._calls[key] = func, args

    def seconds(self) -> float:
        """Time of all recorded products, each kind done twice and the second time counted as often as it occurred."""
        total = 0.0
        with torch.no_grad():
            for key, count in self.counts.items():
                func, likes = self._calls[key]
                args = tree_map(lambda value: value.make() if isinstance(value, Like) else value, likes)
                total += count * best_seconds(lambda func=func, args=args: func(*args), repeats=3)
        return total


def best_seconds(work: Callable[[], object], repeats: int, *, warm_up: bool = True) -> float:
    """The shortest time of some calls, usually after one to warm up."""
    if warm_up:
        work()
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)) @ v


def _attention_backward(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Weights again, then the gradients of values, weights, queries and keys: five products."""
    weights = q @ k.transpose(-1, -2)
    for left, right in ((weights.transpose(-1, -2), v), (v, k.transpose(-1, -2)), (weights, k), (weights, q)):
        left @ right
