"""What a GPU needs for the models of Table 2, and the rows of Table 2 in the `small` study, in pieces.

    python benchmarks/gpu.py export                        # where the project is installed: writes build/gpu-runs.json
    python benchmarks/gpu.py latency [RUN ...]             # 100 steps at batch 1, images/s at the best batch
    python benchmarks/gpu.py training [RUN ...]            # images/s and model-FLOP utilisation of a training step
    python benchmarks/gpu.py ways [RUN ...]                # other ways to compile, beside the product's
    python benchmarks/gpu.py table2 [RUN ...] --seeds 0 1  # train, sample and evaluate rows of the `small` study
    python benchmarks/gpu.py tables                        # all figures there are, as Markdown

All but `export` need PyTorch, timm, einops and pandas (with what these bring), and `src` on the PYTHONPATH; `table2`
takes photographs from scikit-image and scikit-learn. A call makes pieces until `--minutes` are over, one line of
--output each, and the same command again goes on with those that are missing. Weights and images of `latency`,
`training` and `ways` are random, and training is without alignment, whose encoder is no part of the model.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import torch
from gpu_ways import WAYS, ways
from products import best_seconds
from steps import model_of, training_step

from dip.environment import describe_environment, device_name, pick_device
from dip.model import build_model
from dip.reporting.cost import forward_gflops
from dip.sampling.fast import FastSampler
from dip.sampling.latency import cost_of_sampling

RUNS = Path("build/gpu-runs.json")
SPEEDS = ("compiled", "plain")
COLUMNS = {
    "latency": (
        "latency_seconds",
        "latency_spread_seconds",
        "images_per_second",
        "best_batch_size",
        "peak_memory_gb",
    ),
    "training": (
        "images_per_second",
        "batch_size",
        "peak_memory_gb",
        "gflops_per_image",
        "tflops",
        "utilisation_of_product",
        "utilisation_of_peak",
    ),
    "ways": (
        "step_ms",
        "latency_seconds",
        "attention_ms",
        "products_ms",
        "others_ms",
        "kernels",
        "relative_error",
        "start_seconds",
        "training_ms",
        "training_attention_ms",
        "training_products_ms",
        "training_others_ms",
        "batch_size",
    ),
    "table2": ("fid", "sfid", "inception_score", "precision", "recall", "training_seconds", "sampling_seconds"),
}
_PRODUCT_SIZE = 8192
_STEPS = 5
_PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312}  # dense bfloat16, by the vendor's data sheets

Figures = dict[str, Any]
Piece = tuple[Figures, Callable[[], Figures]]


class Settings(SimpleNamespace):
    """A resolved run where pydantic is not installed: what `export` wrote, by attribute."""

    def model_copy(self, *, update: Figures) -> Settings:
        """A copy with other values, as pydantic makes it."""
        return Settings(**{**vars(self), **update})


def export(target: Path) -> None:
    """Write the rows of Tables 2 and 3 of the paper and of Table 2 of `small`, with what their classes compute."""
    from dip import params
    from dip.files import write_json

    known, content = params.load(), {}
    for table, study in (("table2", "paper"), ("table3", "paper"), ("table2", "small")):
        for name in known.tables[table][study].runs:
            run = known.runs[name]
            entry = run.model_dump(mode="json") | {"num_steps": run.num_steps}
            entry["dataset"] |= {key: getattr(run.dataset, key) for key in ("num_classes", "num_images")}
            content[name] = entry
    write_json(target, content)


def read_runs(path: Path) -> dict[str, Settings]:
    """What `export` wrote."""
    if not path.is_file():
        raise SystemExit(f"{path} is missing; write it with `python benchmarks/gpu.py export` where DiP is installed")
    return vars(json.loads(path.read_text(), object_hook=lambda entry: Settings(**entry)))


def latency(run: Settings, speed: str, search_seconds: float) -> Figures:
    """What a sample costs."""
    forget_peak_memory()
    sampler = FastSampler(model_of(run), run.sampling, speed=speed)
    return cost_of_sampling(sampler, run.dataset.image_size, repeats=5, search_seconds=search_seconds)


def training(run: Settings, speed: str) -> Figures:
    """Images a second and model-FLOP utilisation at the largest batch of those halved from the run's that fits."""
    size = run.dataset.image_size
    gflops = 3 * forward_gflops(lambda: build_model(run.model, size, run.dataset.num_classes), size)
    batch_size = run.training.batch_size
    while True:
        forget_peak_memory()
        try:
            step = training_step(run, speed, batch_size)
            step.whole()  # compiles
            seconds = best_seconds(lambda step=step: _repeat(step.whole), repeats=2) / _STEPS
            break
        except torch.cuda.OutOfMemoryError:
            if batch_size == 1:
                raise
        step, batch_size = None, batch_size // 2
    product = product_flops()
    achieved = batch_size / seconds * gflops * 1e9
    peak = next((peak for name, peak in _PEAK_TFLOPS.items() if name in device_name(pick_device())), None)
    return {
        "images_per_second": batch_size / seconds,
        "batch_size": batch_size,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "gflops_per_image": gflops,
        "product_tflops": product / 1e12,
        "utilisation_of_product": achieved / product,
        "utilisation_of_peak": peak and achieved / peak / 1e12,
        "tflops": achieved / 1e12,
    }


def _repeat(work: Callable[[], None]) -> None:
    """Several steps of which none waits for the one before, as in a training."""
    for _ in range(_STEPS):
        work()


def forget_peak_memory() -> None:
    """Free what is cached and count memory anew, on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def product_flops() -> float:
    """Operations a second of one large bare product in bfloat16, the limit that is compared with."""
    size = _PRODUCT_SIZE if torch.cuda.is_available() else _PRODUCT_SIZE // 16
    a, b = (torch.randn(size, size, device=pick_device(), dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / best_seconds(lambda: a @ b, repeats=10)


def pieces(options: argparse.Namespace) -> Iterator[Piece]:
    """What a command has to do: a key and the work."""
    runs = read_runs(options.runs)
    study = "small" if options.what == "table2" else "paper"
    names = options.run or [name for name, run in runs.items() if run.study == study]
    if options.what == "table2":
        from gpu_table2 import Evaluator, table2

        evaluator = Evaluator()
        for seed in options.seeds:
            for name in names:
                yield {"run": name, "seed": seed}, lambda n=name, s=seed: table2(runs[n], s, evaluator)
        return
    if options.what == "ways":
        for name in names:
            for way in options.ways:
                yield {"run": name, "way": way}, functools.partial(ways, runs[name], way)
        return
    for name in names:
        for speed in options.speeds:
            if options.what == "latency":
                work = functools.partial(latency, runs[name], speed, options.search)
            else:
                work = functools.partial(training, runs[name], speed)
            yield {"run": name, "speed": speed}, work


def make(options: argparse.Namespace) -> None:
    """Make pieces until the time is over; each is one line of the output, and none is made twice on a device."""
    end = time.monotonic() + 60 * options.minutes
    device = device_name(pick_device())
    known = read_figures(options.output)
    for key, work in pieces(options):
        key = {"what": options.what, "device": device, **key}
        if any(key.items() <= line.items() for line in known if "error" not in line):
            continue
        if time.monotonic() > end:
            print("time is over; call again for the rest", flush=True)
            return
        start = time.perf_counter()
        try:
            figures = work()
        except RuntimeError as error:  # no memory, or a way that does not compile: the other pieces are made
            figures = {"error": str(error).strip().partition("\n")[0]}
        line = {**key, **figures, "seconds": time.perf_counter() - start, "versions": describe_environment()}
        with options.output.open("a") as file:
            file.write(json.dumps(line, sort_keys=True) + "\n")
        print(json.dumps({k: v for k, v in line.items() if k != "versions"}), flush=True)


def read_figures(path: Path) -> list[Figures]:
    """Lines of an output; a last line that was cut off does not count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]))
    return [json.loads(line) for line in lines if line.endswith("\n")]


def tables(path: Path) -> str:
    """Figures as Markdown, a table for each kind."""
    frame = pd.DataFrame(read_figures(path))
    if frame.empty:
        raise SystemExit(f"{path} holds no figures yet")
    if "peak_memory_bytes" in frame:
        frame["peak_memory_gb"] = frame["peak_memory_bytes"] / 1e9
    parts = []
    for (what, device), rows in frame.groupby(["what", "device"]):
        key = {"table2": "seed", "ways": "way"}.get(str(what), "speed")
        shown = rows[["run", key, *(name for name in COLUMNS[str(what)] if name in rows)]]
        parts.append(f"### {what}, {device}\n\n{shown.to_markdown(index=False, floatfmt='.4g')}\n")
    return "\n".join(parts)


def main() -> None:
    """Make pieces, or show what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "latency", "training", "ways", "table2", "tables"))
    parser.add_argument("run", nargs="*", help="exported runs; all of the study if none is given")
    parser.add_argument("--runs", type=Path, default=RUNS, help="what `export` wrote")
    parser.add_argument("--speeds", nargs="+", default=SPEEDS, choices=("plain", "fast", "compiled"))
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1))
    parser.add_argument("--search", type=float, default=120, help="seconds after which no larger batch is tried")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no piece after so many")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/gpu.jsonl"))
    options = parser.parse_args()
    if options.what == "export":
        export(options.runs)
    elif options.what == "tables":
        print(tables(options.output))
    else:
        make(options)


if __name__ == "__main__":
    main()
