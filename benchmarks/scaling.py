"""How cost grows: with the batch, the resolution, the processes of a training, and the number of runs in params.yaml.

    python benchmarks/scaling.py [--what batch resolution processes runs] [--rounds 3]

- batch: a guided step of the demo's DiP, in milliseconds an image.
- resolution: a step of a DiP/16 with a backbone of DiT-S's size at batch 1, in milliseconds a token; there are
  (side / 16)^2 tokens.
- processes: `dip train demo_dip_p8 --processes N`, one thread each; milliseconds an image, the median of its log.
- runs: `snakemake -n` for Table 2 of the demo with so many more rows, of which nothing is made; milliseconds a row.

Sizes take turns and the shortest time of each counts. Prints a table and writes scaling.json and scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from products import best_seconds
from report import report
from ruamel.yaml import YAML
from steps import model_of

from dip import params
from dip.memory import keep_freed_memory
from dip.sampling.fast import FastSampler

REPOSITORY = Path(__file__).parent.parent
BATCHES = (1, 4, 16, 64)
SIDES = (128, 256, 512)
PROCESSES = (1, 2)
RUNS = (10, 100, 1000)
_DIT_S = {"hidden_size": 384, "depth": 12, "num_heads": 6}


class Growth:
    """Shortest seconds of every size, taken in turns.

    Args:
        unit: What cost is divided by.
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.seconds: dict[int, float] = {}
        self.units: dict[int, int] = {}

    def add(self, size: int, seconds: float, units: int) -> None:
        """Note one measurement."""
        self.seconds[size] = min(seconds, self.seconds.get(size, seconds))
        self.units[size] = units

    def rows(self, what: str) -> list[dict[str, Any]]:
        """A row for each size; `growth` is the cost of a unit relative to that at the smallest size."""
        cost = {size: 1e3 * seconds / self.units[size] for size, seconds in self.seconds.items()}
        first = cost[min(cost)]
        return [
            {"what": what, "size": size, "seconds": self.seconds[size], "per": self.unit}
            | {"milliseconds_per_unit": cost[size], "growth": cost[size] / first}
            for size in sorted(cost)
        ]


def batch(rounds: int) -> Growth:
    """A guided step of the demo's DiP."""
    run = params.load().runs["demo_dip"]
    sampling = run.sampling.model_copy(update={"cfg_interval": (0.0, 1.0), "num_steps": 1})
    sampler, growth = FastSampler(model_of(run), sampling), Growth("image")
    for _ in range(rounds):
        for size in BATCHES:
            x_0, y = torch.randn(size, 3, 32, 32).to(sampler.device), torch.zeros(size, dtype=torch.int64)
            y = y.to(sampler.device)
            growth.add(size, best_seconds(lambda x_0=x_0, y=y: sampler(x_0, y), repeats=3), size)
    return growth


def resolution(rounds: int) -> Growth:
    """One step without guidance of DiP/16 at several resolutions."""
    run, growth = params.load().runs["dip_xl_16"], Growth("token")
    sampling = run.sampling.model_copy(update={"cfg_scale": 1.0, "num_steps": 1})
    model = run.model.model_copy(update=_DIT_S)
    samplers = {}
    for side in SIDES:
        dataset = run.dataset.model_copy(update={"image_size": side})
        samplers[side] = FastSampler(model_of(run.model_copy(update={"model": model, "dataset": dataset})), sampling)
    for _ in range(rounds):
        for side, sampler in samplers.items():
            x_0 = torch.randn(1, 3, side, side, device=sampler.device)
            y = torch.zeros(1, dtype=torch.int64, device=sampler.device)
            seconds = best_seconds(lambda sampler=sampler, x_0=x_0, y=y: sampler(x_0, y), repeats=2)
            growth.add(side, seconds, (side // 16) ** 2)
    return growth


def processes(rounds: int) -> Growth:
    """A training that several processes share: the median of its log's lines, without the first."""
    growth = Growth("image")
    for _ in range(rounds):
        for number in PROCESSES:
            with tempfile.TemporaryDirectory() as temporary:
                folder = copy_of_params(Path(temporary), {})
                dip(folder, "prepare", "photos32")
                dip(folder, "train", "demo_dip_p8", "--processes", str(number))
                log = (folder / "results/demo/runs/demo_dip_p8/training.jsonl").read_text().splitlines()
                rate = statistics.median(json.loads(line)["images_per_second"] for line in log[1:])
                growth.add(number, 320 / rate, 320)
    return growth


def runs(rounds: int) -> Growth:
    """Planning a table with many rows more, that is with as many trainings, samplings and evaluations."""
    growth = Growth("row")
    for _ in range(rounds):
        for number in RUNS:
            names = [f"demo_more_{index}" for index in range(number)]
            more = {name: {"base": "demo_dit", "training": {"seed": seed}} for seed, name in enumerate(names)}
            sections = {"sections": {"Scaling Up DiT": names}}
            with tempfile.TemporaryDirectory() as temporary:
                folder = copy_of_params(Path(temporary), {"runs": more, "tables": {"table2": {"demo": sections}}})
                shutil.copy(REPOSITORY / "Snakefile", folder)
                shutil.copytree(REPOSITORY / "workflow", folder / "workflow")
                command = ["snakemake", "--profile", "workflow/profiles/demo", "-n", "results/demo/table2.csv"]
                start = time.perf_counter()
                call([str(Path(sys.executable).with_name(command[0])), *command[1:]], folder)
                growth.add(number, time.perf_counter() - start, number)
    return growth


def copy_of_params(folder: Path, changes: dict[str, Any]) -> Path:
    """Write params.yaml with changes, key by key, to a folder."""
    yaml = YAML(typ="safe", pure=True)
    content = yaml.load(REPOSITORY / "params.yaml")
    merge(content, changes)
    yaml.dump(content, folder / "params.yaml")
    return folder


def merge(content: dict[str, Any], changes: dict[str, Any]) -> None:
    """Set values in nested mappings."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(content.get(key), dict):
            merge(content[key], value)
        else:
            content[key] = value


def dip(folder: Path, *arguments: str) -> None:
    """A command of DiP in a folder."""
    call([str(Path(sys.executable).with_name("dip")), *arguments], folder)


def call(command: list[str], folder: Path) -> None:
    """Run a command with one thread a process; it must succeed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "src")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


GROWTHS = {"batch": batch, "resolution": resolution, "processes": processes, "runs": runs}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", default=list(GROWTHS), choices=list(GROWTHS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder of the results")
    options = parser.parse_args()
    keep_freed_memory()  # as every job does
    rows = [row for what in options.what for row in GROWTHS[what](options.rounds).rows(what)]
    report(rows, options.output, "scaling", floatfmt=".3g", threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
