"""Where the time of a step goes: products, norms, activations, copies and the rest, plain, fast and compiled.

    python benchmarks/shares.py sampling [--run dip_xl_16] [--speeds peers plain fast compiled]
    python benchmarks/shares.py training [--images 4] [--backbone 768 12 12]

Profiles one guided step at batch 1, or one training step, after another to warm up, and adds up the operators' own
times by kind; `peers` is the same model and sampler as the peers write them (benchmarks/peers_way.py). A profiled
step is slower than one that is not: shares are what it tells. Prints a table and writes shares-<what>.json and .md.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers_way import as_peers_write, draw_as_peers
from report import report, settings
from steps import model_of, training_step, with_backbone
from torch.profiler import ProfilerActivity, profile

from dip import params
from dip.environment import pick_device
from dip.memory import keep_freed_memory
from dip.sampling.fast import FastSampler
from dip.schema import Run
from dip.speed import SPEEDS

KINDS = {  # the first pattern that an operator's name has decides
    "fused by torch.compile": r"Compiled|Dynamo|AOTDispatcher|triton",
    "products and convolutions": r"mm|linear|conv|scaled_dot_product|attention",
    "norms": r"norm|mean|rsqrt|pow",
    "activations": r"silu|gelu|sigmoid|softmax",
    "optimiser and averages": r"adam|lerp|foreach",
    "copies and casts": r"copy|cat|stack|roll|clone|index|contiguous|fill|zero",
    "sums, products and pooling by element": r"mul|add|sub|div|neg|sum|pool|upsample",
}


def kind_of(operator: str) -> str:
    """The kind of an operator."""
    name = operator.removeprefix("aten::")
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), "the rest")


def sampling(run: Run, speed: str) -> Callable[[], Any]:
    """A guided step at batch 1."""
    settings = run.sampling.model_copy(update={"cfg_interval": (0.0, 1.0), "num_steps": 1})
    model, size, device = model_of(run), run.dataset.image_size, pick_device()
    x_0, y = torch.randn(1, 3, size, size, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    if speed == "peers":
        as_peers_write(model.eval())
        return draw_as_peers(model, x_0, y, settings)
    sampler = FastSampler(model, settings, speed=speed)
    return lambda: sampler(x_0, y)


def seconds_by_kind(step: Callable[[], Any]) -> dict[str, float]:
    """Own time of all operators of one step."""
    step()
    cuda = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        step()
    result: dict[str, float] = {}
    for event in profiler.key_averages():
        own = event.self_device_time_total if cuda else event.self_cpu_time_total
        kind = kind_of(event.key)
        result[kind] = result.get(kind, 0.0) + own / 1e6
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sampling", "training"))
    parser.add_argument("--run", default="dip_xl_16", help="a run of params.yaml")
    parser.add_argument("--speeds", nargs="+", default=["plain", "fast"], choices=("peers", *SPEEDS))
    parser.add_argument("--images", type=int, default=4, help="batch of a training step")
    sizes = ("WIDTH", "DEPTH", "HEADS")
    parser.add_argument("--backbone", nargs=3, type=int, metavar=sizes, help="in the place of the run's; B: 768 12 12")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder of the results")
    options = parser.parse_args()
    if "peers" in options.speeds and options.what == "training":
        parser.error("argument --speeds: the peers' way is written for sampling only")
    keep_freed_memory()  # as every job does
    run = params.load().runs[options.run]
    if options.backbone:
        run = with_backbone(run, *options.backbone)
    found = {}
    for speed in options.speeds:
        step = sampling(run, speed) if options.what == "sampling" else training_step(run, speed, options.images).whole
        found[speed] = seconds_by_kind(step)
    rows = []
    for kind in (*KINDS, "the rest"):
        row: dict[str, Any] = {"kind": kind}
        for speed, seconds in found.items():
            row |= {f"{speed}_seconds": seconds.get(kind, 0.0)}
            row |= {f"{speed}_share": seconds.get(kind, 0.0) / sum(seconds.values())}
        rows.append(row)
    report(rows, options.output, f"shares-{options.what}", floatfmt=".2f", settings=settings(options))


if __name__ == "__main__":
    main()
