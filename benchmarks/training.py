"""What checkpoints and gradient checkpointing cost a training, and how much memory its state takes.

    python benchmarks/training.py saving [--run demo_dip] [--steps 40] [--rounds 3]
    python benchmarks/training.py recompute [--run demo_dip] [--images 64]
    python benchmarks/training.py state [--run dip_xl_16]

`saving` trains with and without checkpoints in turn and gives the time that one checkpoint takes from the loop as a
share of a minute: by the wall clock, and by the processor's time of all threads, which other work on the machine does
not change. `recompute` makes steps with and without gradient checkpointing in turn. `state` makes the state of a
training, optimiser included, and compares the memory it takes with 16 bytes per parameter. Works on a GPU if there is
one. Prints a table and writes training-<what>.json and .md. Images are random: what they show costs nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import report, settings

from dip import params
from dip.data.prepare import write_store
from dip.diffusion.objective import draw
from dip.environment import pick_device
from dip.paths import Store
from dip.precision import autocast
from dip.schema import Photographs, TrainingSpec
from dip.training.checkpoint import StateFolder
from dip.training.distributed import Group, Place
from dip.training.loop import train
from dip.training.optimization import Objective, gradient_norm, losses_of, total_loss
from dip.training.saving import snapshot
from dip.training.state import TrainingState

Row = dict[str, Any]
_LOG_EVERY = 5


def spec_of(run: str, batch_size: int | None, num_steps: int) -> TrainingSpec:
    """A run's model and optimisation on random images of its size, without alignment, for some steps."""
    spec = params.load().runs[run].part(TrainingSpec)
    batch = batch_size or spec.training.batch_size
    dataset = Photographs(
        kind="photographs",
        image_size=spec.dataset.image_size,
        photographs=("coffee", "coins"),
        crops_per_class=batch,
    )
    changes = {
        "batch_size": batch,
        "epochs": -(-num_steps // 2),  # two batches each
        "milestones": (),
        "ema_decays": (),
        "alignment": None,
        "log_every": _LOG_EVERY,
        "init_from": None,
    }
    training = spec.training.model_copy(update=changes)
    return spec.model_copy(update={"dataset": dataset, "training": training})


def random_store(spec: TrainingSpec, folder: Path) -> Store:
    """Random images for a spec."""
    size, count = spec.dataset.image_size, spec.dataset.num_images
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    store = Store(folder)
    store.folder.mkdir(parents=True)
    write_store("random", spec.dataset, store, images, np.arange(count) % 2, ["coffee", "coins"])
    return store


def memory_in_use() -> int:
    """Bytes on the GPU, or of the whole process."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # glibc: give back what is free
    return _status("VmRSS")


def peak_of(work: Callable[[], object]) -> int:
    """Bytes in use at the peak of some work."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        work()
        return torch.cuda.max_memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak so far
    work()
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def measure_saving(options: argparse.Namespace) -> list[Row]:
    """Seconds of the loop with and without checkpoints, in turn."""
    spec = spec_of(options.run, options.images, options.steps)
    every = max(1, options.steps // 10)
    num_saves = (spec.num_steps - 1) // every
    wall: dict[bool, list[float]] = {False: [], True: []}
    processor: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        data = random_store(spec, Path(folder) / "data")
        for number in range(2 * options.rounds + 1):
            saving, work, start = number % 2 == 0, Path(folder) / str(number), sum(os.times()[:2])
            train(spec, work, save_seconds=1e9, save_steps=every if saving else None, data=data)
            if number > 0:  # the first one warms up
                processor[saving].append(sum(os.times()[:2]) - start)
                lines = map(json.loads, (work / "training.jsonl").read_text().splitlines())
                speeds = [line["images_per_second"] for line in lines]
                wall[saving].append(spec.num_steps * spec.training.batch_size / statistics.harmonic_mean(speeds))
        state = TrainingState.new(spec, _group())
        _fill_optimizer(state)
        copying, content = _timed(lambda: snapshot(state.state_dict()))
        writing, _ = _timed(lambda: StateFolder(Path(folder)).save(1, content))
    rows = []
    for clock, seconds in (("wall clock", wall), ("processor", processor)):
        without, with_saves = (statistics.median(seconds[saving]) for saving in (False, True))
        cost = (with_saves - without) / num_saves
        rows.append(
            {
                "clock": clock,
                "loop_seconds": without,
                "loop_seconds_saving": with_saves,
                "checkpoints": num_saves,
                "seconds_per_checkpoint": cost,
                "share_of_a_minute": cost / 60,
            }
        )
    pieces = {"copy": copying, "write": writing}
    return rows + [
        {"clock": f"{name} alone", "seconds_per_checkpoint": seconds, "share_of_a_minute": seconds / 60}
        for name, seconds in pieces.items()
    ]


def measure_recompute(options: argparse.Namespace) -> list[Row]:
    """Time and peak memory of a step with and without gradient checkpointing, in turn."""
    spec = spec_of(options.run, options.images, 2)
    rows: dict[bool, Row] = {}
    steps: dict[bool, Callable[[], object]] = {}
    for recompute in (False, True):
        state = TrainingState.new(spec, _group(), gradient_checkpointing=recompute)
        steps[recompute] = _step(state, spec)
        steps[recompute]()
        before = memory_in_use()
        rows[recompute] = {
            "gradient_checkpointing": "on" if recompute else "off",
            "activations_gib": (peak_of(steps[recompute]) - before) / 2**30,
        }
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(options.rounds):
        for recompute in (False, True):
            start = sum(os.times()[:2]) if not torch.cuda.is_available() else time.perf_counter()
            steps[recompute]()
            end = sum(os.times()[:2]) if not torch.cuda.is_available() else time.perf_counter()
            seconds[recompute].append(end - start)
    for recompute in (False, True):
        rows[recompute]["seconds_per_step"] = statistics.median(seconds[recompute])
    ratio = {key: rows[True][key] / rows[False][key] for key in ("activations_gib", "seconds_per_step")}
    return [rows[False], rows[True], {"gradient_checkpointing": "ratio", **ratio}]


def measure_state(options: argparse.Namespace) -> list[Row]:
    """Memory of weights, average and optimiser, measured and by count."""
    spec = spec_of(options.run, options.images, 2)
    before = memory_in_use()
    state = TrainingState.new(spec, _group())
    _fill_optimizer(state)
    taken = memory_in_use() - before
    num_parameters = sum(parameter.numel() for parameter in state.model.parameters())
    return [
        {
            "run": options.run,
            "parameters_millions": num_parameters / 1e6,
            "state_gb": taken / 1e9,
            "bytes_per_parameter": taken / num_parameters,
            "of_16_bytes": taken / (16 * num_parameters),
        }
    ]


def _group() -> Group:
    return Group(Place(), pick_device())


def _fill_optimizer(state: TrainingState) -> None:
    """A step with gradients of zero, after which the optimiser has all that it keeps."""
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)


def _step(state: TrainingState, spec: TrainingSpec) -> Callable[[], object]:
    """A step of training on random images."""
    device, size = _group().device, spec.dataset.image_size
    x_1 = torch.rand(spec.training.batch_size, 3, size, size, device=device) * 2 - 1
    y = torch.zeros(len(x_1), dtype=torch.int64, device=device)
    path, y = draw(x_1, y, spec.training, step=0, null_class=spec.dataset.num_classes)
    objective = Objective(state.model, None, spec.training)

    def step() -> None:
        with autocast(spec.training.precision, device):
            losses = losses_of(objective, path, y, x_1)
        total_loss(losses, spec.training).backward()
        gradient_norm(state.optimizer, None)
        state.optimizer.zero_grad(set_to_none=False)  # gradients do not count as activations
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


MEASUREMENTS = {"saving": measure_saving, "recompute": measure_recompute, "state": measure_state}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=MEASUREMENTS)
    parser.add_argument("--run", default="demo_dip", help="a run of params.yaml")
    parser.add_argument("--images", type=int, default=None, help="batch size; the run's if not given")
    parser.add_argument("--steps", type=int, default=40, help="steps of a training")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path.cwd(), help="folder of the JSON and Markdown files")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = MEASUREMENTS[options.what](options)
    report(rows, options.output, f"training-{options.what}", settings=settings(options))


if __name__ == "__main__":
    main()
