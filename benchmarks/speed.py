"""How fast a step of sampling or training is: plain, fast and compiled, beside the bare products of the same step.

    python benchmarks/speed.py sampling [--run dip_xl_16 dit_26x1152] [--speeds peers fast compiled] [--steps 100]
    python benchmarks/speed.py training [--run dip_xl_16] [--images 8] [--backbone 768 12 12]

`sampling` times one guided step at batch 1 (two forward passes) and a schedule with its interval of guidance; `peers`
is the same model and sampler as the peers write them (benchmarks/peers_way.py). `training` times forward and backward
pass, optimiser and average. All ways take turns, so that what else the machine does meets all alike; the shortest time
of each counts. The limit is the summed time of the matrix products and convolutions that the fast way makes, done alone
(benchmarks/products.py). Works on a GPU if there is one. Weights and images are random. Prints tables and writes
speed-<what>.json and .md.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from typing import Any

import torch
from peers_way import as_peers_write, draw_as_peers
from products import Products, best_seconds
from report import begin, report, settings
from steps import model_of, training_step, with_backbone

from dip import params
from dip.environment import pick_device
from dip.precision import autocast, dtype_name
from dip.sampling.fast import FastSampler
from dip.schema import Run
from dip.speed import SPEEDS

Row = dict[str, Any]
Work = dict[str, Callable[[], object]]


def sampling_steps(run: Run, speeds: list[str], num_steps: int) -> tuple[Work, Work, Products]:
    """One guided step and a schedule of some steps at every speed, and the products of the fast step."""
    device, size = pick_device(), run.dataset.image_size
    x_0, y = torch.randn(1, 3, size, size, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    guided = run.sampling.model_copy(update={"cfg_interval": (0.0, 1.0), "num_steps": 1})
    short = run.sampling.model_copy(update={"num_steps": num_steps})
    steps: Work = {}
    schedules: Work = {}
    products = Products()
    for speed in speeds:
        model = model_of(run)
        if speed == "peers":
            model = model.eval()
            as_peers_write(model)
            steps[speed], schedules[speed] = (draw_as_peers(model, x_0, y, sampling) for sampling in (guided, short))
            continue
        sampler = FastSampler(model, short, speed=speed)
        sampler(x_0, y, num_steps=2)  # compiles what a schedule needs, with guidance and without
        schedules[speed] = lambda sampler=sampler: sampler(x_0, y)
        if speed == "plain":
            once = FastSampler(model, guided, speed=speed)
            steps[speed] = lambda once=once: once(x_0, y)
            continue
        velocity = sampler.velocity(y, guided)

        def step(velocity: Any = velocity) -> None:
            with torch.inference_mode(), autocast(guided.precision, device):
                velocity(x_0, 0.0)

        steps[speed] = step
        if speed == "fast":
            with torch.no_grad(), autocast(guided.precision, device), products:
                velocity(x_0, 0.0)  # makes the table of conditioning, once for all steps
                products.counts.clear()
                velocity(x_0, 0.0)
    return steps, schedules, products


def training_steps(run: Run, speeds: list[str], batch_size: int) -> tuple[Work, Products]:
    """A training step at every speed, and the products of the fast one."""
    steps: Work = {}
    products = Products()
    for speed in speeds:
        step = training_step(run, speed, batch_size)
        steps[speed] = step.whole
        if speed == "fast":
            with products:
                step.passes()
    return steps, products


def take_turns(work: Work, rounds: int, products: Products | None = None, *, warm_up: bool = True) -> dict[str, float]:
    """The shortest time of every way, and of the bare products; what is warm already needs no call to warm up."""
    timed = products is not None and products.counts  # they are recorded from the fast way, if that takes part
    best = dict.fromkeys([*work, *(["products"] if timed else [])], float("inf"))
    for turn in range(rounds):
        for name, way in work.items():
            best[name] = min(best[name], best_seconds(way, repeats=1, warm_up=warm_up and turn == 0))
        if products is not None and timed:
            best["products"] = min(best["products"], products.seconds())
    return best


def row(run: str, what: str, best: dict[str, float]) -> Row:
    """Seconds, times the limit, and times as fast as the peers' way and plain."""
    result: Row = {"run": run, "what": what, **{f"{name}_seconds": seconds for name, seconds in best.items()}}
    for name in ("fast", "compiled"):
        if name in best and "products" in best:
            result[f"{name}_over_products"] = best[name] / best["products"]
        for usual in ("peers", "plain"):
            if name in best and usual in best:
                result[f"{usual}_over_{name}"] = best[usual] / best[name]
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sampling", "training"))
    parser.add_argument("--run", nargs="+", default=["dip_xl_16"], help="runs of params.yaml")
    parser.add_argument("--speeds", nargs="+", choices=("peers", *SPEEDS), help="all if not given; peers: sampling")
    parser.add_argument("--images", type=int, default=8, help="batch of a training step")
    parser.add_argument("--steps", type=int, default=10, help="of the schedule")
    sizes = ("WIDTH", "DEPTH", "HEADS")
    parser.add_argument("--backbone", nargs=3, type=int, metavar=sizes, help="in the place of the run's; B: 768 12 12")
    options = begin(parser)
    rows: list[Row] = []
    speeds = options.speeds or list(("peers", *SPEEDS) if options.what == "sampling" else SPEEDS)
    if "compiled" in speeds and pick_device().type == "cpu" and shutil.which("g++") is None:
        print("torch.compile needs g++ on a CPU, and there is none: compiled is left out")
        speeds.remove("compiled")
    if "peers" in speeds and options.what == "training":
        parser.error("argument --speeds: the peers' way is written for sampling only")
    runs = params.load().runs
    for name in options.run:
        run = runs[name]
        if options.backbone:
            run = with_backbone(run, *options.backbone)
        if options.what == "sampling":
            steps, schedules, products = sampling_steps(run, speeds, options.steps)
            rows.append(row(name, "guided step, batch 1", take_turns(steps, options.rounds, products)))
            whole = take_turns(schedules, options.rounds, warm_up=False)
            rows.append(row(name, f"schedule of {options.steps} steps", whole))
        else:
            work, products = training_steps(run, speeds, options.images)
            rows.append(row(name, f"training step, batch {options.images}", take_turns(work, options.rounds, products)))
    dtype = dtype_name("bf16", pick_device())
    report(rows, options.output, f"speed-{options.what}", dtype=dtype, settings=settings(options))


if __name__ == "__main__":
    main()
