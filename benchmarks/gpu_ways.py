"""Other ways to compile a model, beside the product's in one run: what `python benchmarks/gpu.py ways` makes."""

from __future__ import annotations

import contextlib
import re
import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from products import best_seconds
from steps import model_of, training_step
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from dip.diffusion.sampler import guided
from dip.environment import pick_device
from dip.model import DiP
from dip.precision import autocast
from dip.sampling.fast import FastSampler

if TYPE_CHECKING:
    from dip.schema import Run

Figures = dict[str, Any]


class Way(NamedTuple):
    """How a model is compiled.

    Attributes:
        whole: As one graph, in which the last gate of a block meets the norm of the next; otherwise block by block.
        tuned: With products and fused operations that Inductor has timed several of.
        cudnn: With cuDNN's attention in the place of FlashAttention.
        early: With fused operations that begin while the kernel before them ends (programmatic dependent launch).
    """

    whole: bool = False
    tuned: bool = False
    cudnn: bool = False
    early: bool = False


WAYS = {
    "blocks": Way(),  # the product's
    "cudnn": Way(cudnn=True),
    "early": Way(early=True),
    "whole": Way(whole=True),
    "tuned": Way(tuned=True),
    "whole_tuned": Way(whole=True, tuned=True),
    "all": Way(whole=True, tuned=True, cudnn=True, early=True),
}
KINDS = {  # the first pattern that a kernel's name has decides
    "attention_ms": r"flash|fmha|sdpa|attention",
    "products_ms": r"gemm|nvjet|cutlass|xmma|conv|splitk|triton_tem",
    "others_ms": "",
}
_BATCH_SIZE = 64  # of a training step, or the run's if that is smaller
_REPEATS = 50


def ways(run: Run, name: str) -> Figures:
    """A guided step at batch 1, its schedule and its error, and a training step, compiled in one of `WAYS`."""
    way = WAYS[name]
    with _compiling(way):
        figures = _sampling(run, way)
    with _compiling(way):
        return figures | _training(run, way)


def _sampling(run: Run, way: Way) -> Figures:
    device, size = pick_device(), run.dataset.image_size
    x_0, y = torch.randn(1, 3, size, size, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    expected = _reference(model_of(run), x_0, y, run.sampling.cfg_scale)
    start = time.perf_counter()
    sampler = FastSampler(model := model_of(run), run.sampling, speed="compiled")
    if way.whole:
        compile_whole(model)
    sampler(x_0, y, num_steps=2)  # one step with guidance and one without, as most intervals have it
    started = time.perf_counter() - start
    everywhere = run.sampling.model_copy(update={"cfg_interval": (0.0, 1.0), "num_steps": 1})
    velocity = sampler.velocity(y, everywhere)

    def step() -> Tensor:
        with torch.inference_mode(), autocast(run.sampling.precision, device):
            return velocity(x_0, 0.0)

    error = (step().double() - expected).norm() / expected.norm()
    return {
        "start_seconds": started,
        "step_ms": 1e3 * statistics.median(best_seconds(step, 1, warm_up=False) for _ in range(_REPEATS)),
        "latency_seconds": statistics.median(best_seconds(lambda: sampler(x_0, y), 1, warm_up=False) for _ in range(5)),
        "relative_error": float(error),
        **_kernels(step),
    }


def _training(run: Run, way: Way) -> Figures:
    batch_size = min(_BATCH_SIZE, run.training.batch_size)
    step = training_step(run, "compiled", batch_size, prepare=compile_whole if way.whole else None)
    milliseconds = 1e3 * best_seconds(step.whole, repeats=5)
    kernels = {f"training_{name}": value for name, value in _kernels(step.whole).items()}
    return {"training_ms": milliseconds, "batch_size": batch_size, **kernels}


def compile_whole(model: DiP) -> None:
    """Compile the model as one graph in the place of its blocks."""
    for module in (*model.blocks, model.head, model.intermediate):
        if module is not None:
            module._compiled_call_impl = None
    model.denoise = torch.compile(model.denoise, dynamic=False)


@contextlib.contextmanager
def _compiling(way: Way) -> Iterator[None]:
    """Forget what was compiled, of which blocks of other models would be taken, and set what a way needs."""
    torch.compiler.reset()
    with contextlib.ExitStack() as stack:
        settings = []
        if way.early:
            settings += ["triton.enable_pdl"]
        if way.tuned:
            settings += ["max_autotune", "coordinate_descent_tuning", "triton.enable_persistent_tma_matmul"]
        stack.enter_context(torch._inductor.config.patch(dict.fromkeys(settings, True)))
        if way.cudnn:
            stack.enter_context(sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH], set_priority=True))
        yield


@torch.no_grad()
def _reference(model: DiP, x_0: Tensor, y: Tensor, cfg_scale: float) -> Tensor:
    """The guided velocity at t = 0 in float32, by the layers as they are written, as float64."""
    labels = torch.cat([y, torch.full_like(y, model.num_classes)])
    both = model.eval()(torch.cat([x_0, x_0]), x_0.new_zeros(2), labels)
    assert isinstance(both, Tensor)
    return guided(both, cfg_scale).double()


def _kernels(step: Any) -> Figures:
    """Milliseconds of a step's kernels by kind, and how many there are; nothing on a CPU."""
    if not torch.cuda.is_available():
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    result: Figures = dict.fromkeys(KINDS, 0.0) | {"kernels": 0}
    for event in profiler.key_averages():
        kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, event.key.lower()))
        result[kind] += event.self_device_time_total / 1e3
        result["kernels"] += event.count if event.self_device_time_total else 0
    return result
