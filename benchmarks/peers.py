"""Sampling beside the peers' own code, in one run: a guided step, and what a schedule of 100 steps makes of it.

    git clone https://github.com/MCG-NJU/DDT build/peers/DDT            # likewise MCG-NJU/PixNerd and Zehong-Ma/DeCo
    python benchmarks/peers.py [--code build/peers] [--speeds fast compiled] [--rounds 3]

The peers' code is imported from clones and not part of this project; a folder that is not there is left out. DDT's
improved DiT with patches of 16 pixels is the paper's "DiT-only"; the sizes of PixNerd-XL and DeCo-XL are those of their
configurations. All have random weights, batch 1 and 256 x 256 pixels, and take turns; the shortest time of each counts.

A schedule is not run but added up from its steps: the peers take the unconditional pass in all of them, this project
inside the interval of guidance only. Prints a table and writes peers.json and .md.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from products import best_seconds
from report import begin, report, settings
from steps import model_of, randomize
from torch import nn

from dip import params
from dip.diffusion.evaluations import evaluation_times, is_guided
from dip.diffusion.sampler import guided
from dip.environment import pick_device
from dip.precision import autocast, dtype_name
from dip.sampling.fast import FastSampler

if TYPE_CHECKING:
    from dip.schema import Run

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
    options = begin(parser)
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
