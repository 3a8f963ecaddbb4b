"""What the evaluation of 50,000 samples costs once their features are there, and what the merging of shards costs.

    python benchmarks/evaluation.py [--num-samples 50000] [--num-reference 10000] [--threads 2]
    python benchmarks/evaluation.py --merge [--num-samples 50000] [--image-size 256]

The features are synthetic, of Inception's sizes: 2048 pooled, 2023 spatial, 1008 classes. What they are does not matter
to the time. The statistics of the reference lie in its file and cost nothing. Prints a table and writes
evaluation.json; seconds of the processor are those of all threads, so on an idle machine the wall clock shows them
divided by up to the number of threads.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate

from dip.environment import describe_environment, device_name
from dip.evaluation import Statistics, frechet_distance, inception_score, precision_recall
from dip.files import write_json
from dip.memory import keep_freed_memory, peak_memory
from dip.sampling.shards import Shards

POOL, SPATIAL, CLASSES = 2048, 2023, 1008
_BLOCK = 5000


class Stopwatch:
    """Wall-clock and processor seconds of named parts."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def time(self, part: str, work: Callable[[], Any]) -> Any:
        """Do the work and note what it took."""
        wall, processor = time.perf_counter(), sum(os.times()[:2])
        result = work()
        seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": sum(os.times()[:2]) - processor}
        self.rows.append({"part": part, **seconds})
        return result


def features(num_images: int, dimension: int, seed: int) -> NDArray[np.float32]:
    """Correlated features of full rank, not negative like those of a ReLU, shape (num_images, dimension)."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((64, dimension), np.float32) / 8
    rows = np.empty((num_images, dimension), np.float32)
    for start in range(0, num_images, _BLOCK):
        count = min(_BLOCK, num_images - start)
        common = rng.standard_normal((count, 64), np.float32) @ mixing
        rows[start : start + count] = np.abs(common + 0.3 * rng.standard_normal((count, dimension), np.float32))
    return rows


def probabilities(num_images: int) -> NDArray[np.float32]:
    """Rows that sum to 1, shape (num_images, 1008)."""
    rows = np.random.default_rng(9).random((num_images, CLASSES), np.float32) ** 8
    return rows / rows.sum(axis=1, keepdims=True)


def evaluate(num_samples: int, num_reference: int) -> Stopwatch:
    """All metrics of the ADM suite, part by part."""
    reference = [Statistics.from_features(features(2 * _BLOCK, dimension, 1)) for dimension in (POOL, SPATIAL)]
    real = features(num_reference, POOL, 2)
    watch = Stopwatch()
    rows = features(num_samples, SPATIAL, 3)
    statistics = watch.time("sFID: mean and covariance, 2023", lambda: Statistics.from_features(rows))
    watch.time("sFID: distance", lambda: frechet_distance(reference[1], statistics))
    rows = features(num_samples, POOL, 4)
    statistics = watch.time("FID: mean and covariance, 2048", lambda: Statistics.from_features(rows))
    watch.time("FID: distance", lambda: frechet_distance(reference[0], statistics))
    watch.time("precision and recall", lambda: precision_recall(real, rows))
    classes = probabilities(num_samples)
    watch.time("Inception Score", lambda: inception_score(classes))
    return watch


def merge(num_samples: int, image_size: int) -> Stopwatch:
    """Shards of full size, all links to one file, merged into one npz."""
    watch = Stopwatch()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        shards = Shards(Path(folder) / "shards", num_samples, 250, image_size)
        images = np.random.default_rng(0).integers(0, 256, (250, image_size, image_size, 3), np.uint8)
        shards.write(0, images, "none")
        first = next(shards.folder.glob("*.npz"))
        for shard in range(1, len(shards)):
            first.with_name(f"{shard:06d}.npz").hardlink_to(first)
        path = Path(folder) / "samples.npz"
        print(f"peak memory before: {peak_memory(torch.device('cpu')) / 1e9:.2f} GB")
        watch.time("merging", lambda: shards.merge(path, np.zeros(num_samples, np.int64)))
        watch.rows[-1]["npz_bytes"] = path.stat().st_size
    return watch


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-samples", type=int, default=50_000)
    parser.add_argument("--num-reference", type=int, default=10_000, help="images for precision and recall")
    parser.add_argument("--image-size", type=int, default=256, help="of the images that are merged")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--merge", action="store_true", help="merge shards instead of computing metrics")
    parser.add_argument("--output", type=Path, default=Path("evaluation.json"))
    options = parser.parse_args()
    keep_freed_memory()  # as every job does
    torch.set_num_threads(options.threads)
    if options.merge:
        watch = merge(options.num_samples, options.image_size)
    else:
        watch = evaluate(options.num_samples, options.num_reference)
    total = {key: sum(row[key] for row in watch.rows) for key in ("wall_seconds", "cpu_seconds")}
    peak = peak_memory(torch.device("cpu"))
    print(tabulate([*watch.rows, {"part": "all", **total}], headers="keys", floatfmt=".1f", tablefmt="github"))
    print(f"peak memory: {peak / 1e9:.2f} GB")
    content = {
        "settings": {key: value for key, value in vars(options).items() if key != "output"},
        "parts": watch.rows,
        "total": total,
        "peak_memory_bytes": peak,
        "load_average": os.getloadavg()[0],
        "device": device_name(torch.device("cpu")),
        "versions": describe_environment(),
    }
    write_json(options.output, content)


if __name__ == "__main__":
    main()
