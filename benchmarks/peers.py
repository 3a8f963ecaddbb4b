"""Sampling beside the peers' own code, in one run: a guided step, and what a schedule of 100 steps makes of it.

    git clone https://github.com/MCG-NJU/DDT build/peers/DDT            # likewise MCG-NJU/PixNerd and Zehong-Ma/DeCo
    python benchmarks/peers.py [--code build/peers] [--speeds fast compiled] [--rounds 3]

The peers' code is imported from clones and not part of this project; a folder that is not there is left out. DDT's
improved DiT with patches of 16 pixels is the paper's "DiT-only"; the sizes of PixNerd-XL and DeCo-XL are those of their
configurations. All have random weights, batch 1 and 256 x 256 pixels, and take turns; the shortest time of each counts.

A schedule is not run but added up from its steps: the peers take the unconditional pass in all of them, this project
inside the interval of guidance only. Prints a table and writes peers.json and .md.

For the other benchmarks, `as_peers_write` and `sample_as_peers` are this project's model and sampler in the peers' way,
with the same samples.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from products import best_seconds
from report import report, settings
from steps import model_of, randomize
from torch import Tensor, nn

from dip import params
from dip.diffusion.evaluations import evaluation_times, is_guided
from dip.diffusion.sampler import guided, integrate
from dip.environment import pick_device
from dip.memory import keep_freed_memory
from dip.model import DiP
from dip.model.layers import Attention, RMSNorm, RotaryEmbedding2D
from dip.precision import autocast, dtype_name
from dip.sampling.fast import FastSampler

if TYPE_CHECKING:
    from dip.schema import Run, Sampling

Step = Callable[[], object]


class Peer(NamedTuple):
    """Where a peer's model is, and its size."""

    folder: str
    module: str
    name: str
    arguments: dict[str, int]


_XL = {"in_channels": 3, "patch_size": 16, "num_groups": 16, "hidden_size": 1152, "num_classes": 1000}
PEERS = {
    "DDT's improved DiT, 26 x 1152": Peer("DDT", "src.models.denoiser.improved_dit", "DiT", _XL | {"num_blocks": 26}),
    "PixNerd-XL": Peer(
        "PixNerd",
        "src.models.transformer.pixnerd_c2i",
        "PixNerDiT",
        _XL | {"hidden_size_x": 64, "num_blocks": 30, "num_cond_blocks": 26, "nerf_mlpratio": 2},
    ),
    "DeCo-XL": Peer(
        "DeCo",
        "src.models.transformer.dit_c2i_DeCo",
        "PixNerDiT",
        _XL | {"hidden_size_x": 32, "num_blocks": 31, "num_cond_blocks": 28, "nerf_mlpratio": 2},
    ),
}


def as_peers_write(model: DiP) -> None:
    """Have a model compute its layers as DDT, PixNerd and DeCo write them, with the same velocities to rounding.

    Norms in float32 and in single operations; rotations of neighbouring channels as complex float32 numbers; q, k and v
    copied into the order of heads. Patches and convolutions stay as this project lays them out.
    """
    for module in model.modules():
        if isinstance(module, RotaryEmbedding2D):
            module.turns = torch.complex(module.cos, module.sin)  # (N, 1, d / 2)
        elif isinstance(module, RMSNorm):
            module.forward = functools.partial(_norm, module)
        elif isinstance(module, Attention):
            _pair_neighbours(module)
            module.forward = functools.partial(_attention, module)


@torch.inference_mode()
def sample_as_peers(model: nn.Module, x_0: Tensor, y: Tensor, sampling: Sampling, null_class: int) -> Tensor:
    """`dip.diffusion.sampler.sample` with an unconditional pass in every step, weighted 0 outside the interval."""
    labels = torch.cat([y, torch.full_like(y, null_class)])

    def velocity(x_t: Tensor, t: float) -> Tensor:
        both = model(torch.cat([x_t, x_t]), torch.full((len(labels),), t, device=x_t.device), labels)
        return guided(both, sampling.cfg_scale if is_guided(sampling, t) else 1.0)

    return integrate(velocity, x_0, sampling)


def as_peers(model: DiP, x_0: Tensor, y: Tensor, sampling: Sampling) -> Callable[[], object]:
    """Draw an image with a model and a sampler as the peers write them."""

    def draw() -> None:
        with autocast(sampling.precision, x_0.device):
            sample_as_peers(model, x_0, y, sampling, model.num_classes)

    return draw


def _norm(norm: RMSNorm, x: Tensor) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.eps)
    return (norm.weight * wide).to(x.dtype)


def _attention(attention: Attention, x: Tensor, rope: RotaryEmbedding2D) -> Tensor:
    q, k, v = rearrange(attention.qkv(x), "b n (three h d) -> three b n h d", three=3, h=attention.num_heads)
    q, k = (_rotate(tensor, rope.turns) for tensor in (attention.q_norm(q), attention.k_norm(k)))
    q, k, v = q.transpose(1, 2), k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous()
    x = F.scaled_dot_product_attention(q, k, v)
    return attention.proj(rearrange(x, "b h n d -> b n (h d)"))


def _rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate x of shape (B, N, h, d) by unit complex numbers of shape (N, 1, d / 2)."""
    planes = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(planes * turns).flatten(-2).to(x.dtype)


@torch.no_grad()
def _pair_neighbours(attention: Attention) -> None:
    """Put the channels of q and k that turn together side by side: 0, d / 2, 1, d / 2 + 1, ..."""
    size = attention.qkv.in_features // attention.num_heads
    order = torch.arange(size).view(2, -1).T.flatten()
    weight = attention.qkv.weight.unflatten(0, (3, attention.num_heads, size))
    weight[:2] = weight[:2, :, order].clone()
    for norm in (attention.q_norm, attention.k_norm):
        if isinstance(norm, RMSNorm):
            norm.weight.copy_(norm.weight[order].clone())


def load(peer: Peer, code: Path) -> nn.Module | None:
    """A peer's model with random weights, from its clone; None if there is none."""
    folder = code / peer.folder
    if not folder.is_dir():
        return None
    sys.path.insert(0, str(folder))
    try:
        model = getattr(importlib.import_module(peer.module), peer.name)(**peer.arguments)
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.partition(".")[0] == "src"]:
            del sys.modules[name]  # all three call their package so
    return randomize(model.to(pick_device()).eval())


def steps_of(run: Run, speed: str) -> dict[bool, Step]:
    """A step of this project by whether it is guided, its conditioning looked up."""
    device, size = pick_device(), run.dataset.image_size
    x_t, y = torch.randn(1, 3, size, size, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    sampler = FastSampler(model_of(run), run.sampling, speed=speed)
    velocity = sampler.velocity(y, run.sampling)
    times = {is_guided(run.sampling, t): t for t in reversed(evaluation_times(run.sampling))}

    def step(t: float) -> None:
        with torch.inference_mode(), autocast(run.sampling.precision, device):
            velocity(x_t, t)

    return {guidance: functools.partial(step, t) for guidance, t in times.items()}


def step_of(model: nn.Module, run: Run) -> Step:
    """A step of a peer: both passes in one batch."""
    device, size = pick_device(), run.dataset.image_size
    x_t, t = torch.randn(1, 3, size, size, device=device), torch.full((2,), 0.5, device=device)
    labels = torch.tensor([0, run.dataset.num_classes], device=device)

    def step() -> None:
        with torch.inference_mode(), autocast(run.sampling.precision, device):
            guided(model(torch.cat([x_t, x_t]), t, labels), run.sampling.cfg_scale)

    return step


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--code", type=Path, default=Path("build/peers"), help="folder of the clones")
    parser.add_argument("--run", nargs="+", default=["dit_26x1152", "dip_xl_16"], help="runs of params.yaml")
    parser.add_argument("--speeds", nargs="+", default=["fast"], choices=("fast", "compiled"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder of the results")
    options = parser.parse_args()
    keep_freed_memory()  # as every job does
    torch.set_num_threads(options.threads)
    runs = params.load().runs
    first = runs[options.run[0]]
    ways: dict[str, dict[bool, Step]] = {}
    for name, peer in PEERS.items():
        model = load(peer, options.code)
        if model is None:
            print(f"{options.code / peer.folder} is missing: {name} is left out")
        else:
            ways[name] = {True: step_of(model, first)}
    for name in options.run:
        for speed in options.speeds:
            ways[f"{name}, {speed}"] = steps_of(runs[name], speed)
    best = {name: dict.fromkeys(steps, float("inf")) for name, steps in ways.items()}
    for turn in range(options.rounds):
        for name, steps in ways.items():
            for guidance, step in steps.items():
                best[name][guidance] = min(best[name][guidance], best_seconds(step, repeats=1, warm_up=turn == 0))
    inside = [is_guided(first.sampling, t) for t in evaluation_times(first.sampling)]
    rows = [
        {
            "model": name,
            "guided step (s)": seconds[True],
            "step without guidance (s)": seconds.get(False),
            f"{len(inside)} steps (s)": sum(seconds.get(guidance, seconds[True]) for guidance in inside),
        }
        for name, seconds in best.items()
    ]
    report(rows, options.output, "peers", dtype=dtype_name("bf16", pick_device()), settings=settings(options))


if __name__ == "__main__":
    main()
