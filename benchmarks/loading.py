"""Preparing and loading ImageNet-shaped data: this store against the JPEGs themselves and against Arrow.

    python benchmarks/loading.py [--images 1000] [--image-size 256] [--rounds 5]

Makes JPEGs of ImageNet's usual size from the photographs that ship with scikit-image, prepares them with one and with
two workers, and reads random batches on one core in turn from

- the JPEGs, with torchvision's `ImageFolder` and ADM's crop,
- the store: uint8 in memory-mapped `.npy` shards,
- an Arrow file of the same bytes, memory-mapped,
- an Arrow file of the same images as PNG, the lossless compression at hand.

All come from the page cache: what is compared is the work of the processor. Seconds are those of the processor, so
that other work on the machine does not count; the wall clock is given beside them. Writes loading.json and loading.md.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from dip.data.crop import center_crop
from dip.data.photographs import load_photograph
from dip.data.prepare import prepare
from dip.files import write_json
from dip.paths import Store
from dip.schema import ImageNet

if TYPE_CHECKING:  # the workers of the preparation import this file too: torch would weigh on them
    import pyarrow as pa

    from dip.data.dataset import ImageStore

NUM_CLASSES = 20
BATCH = 64
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "china", "flower", "retina", "hubble_deep_field")
Reader = Callable[[NDArray[np.int64]], Any]


def write_jpegs(folder: Path, num_images: int) -> float:
    """Crops of photographs, 500 x 375 for the most part; mean bytes of a file."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(load_photograph(name)) for name in PHOTOGRAPHS]
    sizes = []
    for number in range(num_images):
        photograph = photographs[number % len(photographs)]
        width, height = [(500, 375), (500, 333), (375, 500), (640, 480)][int(rng.integers(4))]
        scale = float(rng.uniform(0.5, 1.0)) * min(photograph.width / width, photograph.height / height)
        left = rng.uniform(0, photograph.width - scale * width)
        top = rng.uniform(0, photograph.height - scale * height)
        place = (left, top, left + scale * width, top + scale * height)
        image = photograph.resize((width, height), Image.Resampling.BICUBIC, box=place)
        noisy = np.asarray(image) + rng.normal(0, 6, (height, width, 1))  # else they are smoother than photographs
        path = folder / f"n{number % NUM_CLASSES:08d}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=92)
        sizes.append(path.stat().st_size)
    return statistics.mean(sizes)


class Workers(threading.Thread):
    """Samples the processes that this one starts: highest sum of their resident memory, processor time of each."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_memory, self.cpu_seconds, self.done = 0, dict[int, float](), threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            total = 0
            for process in psutil.Process().children():
                try:
                    total += process.memory_info().rss
                    self.cpu_seconds[process.pid] = sum(process.cpu_times()[:2])
                except psutil.Error:
                    continue
            self.peak_memory = max(self.peak_memory, total)


def time_preparation(dataset: ImageNet, folder: Path, num_workers: int) -> dict[str, float]:
    """Wall clock, processor seconds (of all, and of this process with the busiest worker) and memory of the workers."""
    workers = Workers()
    workers.start()
    start, before, own = time.monotonic(), _cpu_seconds(), time.process_time()
    prepare("benchmark", dataset, Store(folder), num_workers=num_workers)
    seconds = time.monotonic() - start
    workers.done.set()
    return {
        "seconds": seconds,
        "images_per_second": dataset.num_images / seconds,
        "cpu_seconds": _cpu_seconds() - before,
        "busiest_cpu_seconds": time.process_time() - own + max(workers.cpu_seconds.values(), default=0.0),
        "worker_memory_mb": workers.peak_memory / 1e6,
    }


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def write_arrow(path: Path, values: Iterator[bytes], kind: pa.DataType) -> None:
    """One column of images, in record batches of 64."""
    import pyarrow as pa

    schema = pa.schema([("image", kind)])
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        chunk: list[bytes] = []
        for value in values:
            chunk.append(value)
            if len(chunk) == BATCH:
                writer.write_batch(pa.record_batch([pa.array(chunk, kind)], schema=schema))
                chunk = []
        if chunk:
            writer.write_batch(pa.record_batch([pa.array(chunk, kind)], schema=schema))


def readers(folder: Path, jpegs: Path, images: ImageStore) -> tuple[dict[str, Reader], dict[str, float]]:
    """How each layout reads the images of a batch, and how many bytes an image takes in it."""
    import pyarrow as pa
    from torchvision.datasets import ImageFolder as Jpegs

    size, shape = images.images.shape[1], images.images.shape[1:]
    num_bytes = 3 * size**2
    source = Jpegs(str(jpegs), transform=lambda image: center_crop(image, size))
    order = {path: place for place, (path, _) in enumerate(sorted(source.samples))}
    by_place = sorted(range(len(source)), key=lambda place: order[source.samples[place][0]])
    raw, png = folder / "raw.arrow", folder / "png.arrow"
    write_arrow(raw, (images.images[place].tobytes() for place in range(len(images))), pa.binary(num_bytes))
    write_arrow(png, (_png(images.images[place]) for place in range(len(images))), pa.binary())
    raw_column = pa.ipc.open_file(pa.memory_map(str(raw))).read_all().column("image")
    png_column = pa.ipc.open_file(pa.memory_map(str(png))).read_all().column("image")

    def from_jpegs(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([source[by_place[index]][0] for index in indices])

    def from_store(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return images.images[indices]

    def from_arrow(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        batch = np.empty((len(indices), *shape), np.uint8)
        for place, index in enumerate(indices.tolist()):
            batch[place] = np.frombuffer(raw_column[index].as_buffer(), np.uint8).reshape(shape)
        return batch

    def from_png(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return np.stack([np.asarray(Image.open(io.BytesIO(png_column[index].as_py()))) for index in indices.tolist()])

    bytes_per_image = {
        "JPEGs, ImageFolder and crop": sum(p.stat().st_size for p in jpegs.rglob("*.JPEG")) / len(images),
        "store (.npy shards)": float(num_bytes),
        "Arrow, raw": raw.stat().st_size / len(images),
        "Arrow, PNG": png.stat().st_size / len(images),
    }
    return dict(zip(bytes_per_image, (from_jpegs, from_store, from_arrow, from_png), strict=True)), bytes_per_image


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def time_readers(readers: dict[str, Reader], num_images: int, rounds: int) -> dict[str, dict[str, float]]:
    """Images per second of the processor and of the wall clock: medians over rounds, in which all take turns."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    rng = np.random.default_rng(1)
    for read in readers.values():  # fill the page cache
        read(np.arange(num_images))
    for _ in range(rounds):
        for name, read in readers.items():
            cpu, wall, count = time.process_time(), time.monotonic(), 0
            while time.process_time() - cpu < 0.5:
                read(rng.integers(0, num_images, BATCH))
                count += BATCH
            rates[name].append((count / (time.process_time() - cpu), count / (time.monotonic() - wall)))
    return {
        name: {
            "images_per_cpu_second": statistics.median(rate for rate, _ in found),
            "images_per_second": statistics.median(rate for _, rate in found),
        }
        for name, found in rates.items()
    }


def as_markdown(result: dict[str, Any]) -> str:
    """The result as two tables."""
    lines = [
        f"{result['images']} images of {result['image_size']} x {result['image_size']} pixels from JPEGs of "
        f"{result['jpeg_bytes'] / 1e3:.0f} kB, {result['machine']}, Pillow {result['pillow']}.",
        "",
        "| reading, one core | images/s of processor | images/s | ratio | bytes an image | ImageNet |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["loading"].items():
        cells = (
            f"{row['images_per_cpu_second']:,.0f}",
            f"{row['images_per_second']:,.0f}",
            f"{row['ratio']:.1f}",
            f"{row['bytes_per_image']:,.0f}",
            f"{row['bytes_per_image'] * 1_281_167 / 1e9:,.0f} GB",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| preparation | images/s | seconds of processor | of the busiest worker | memory of the workers |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["preparation"].items():
        cells = (
            f"{row['images_per_second']:.0f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['busiest_cpu_seconds']:.1f}",
            f"{row['worker_memory_mb']:.0f} MB" if name != "1 worker" else "-",
        )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Ratio of two workers to one: {result['speedup']:.2f} by the clock, {result['cpu_speedup']:.2f} by the "
        "processor time of this process and the busiest worker (what the clock shows on two free cores).",
    ]
    return "\n".join(lines) + "\n"


def _ratio(preparation: dict[str, list[dict[str, float]]], key: str) -> float:
    """Median ratio of one worker to two over the rounds."""
    return statistics.median(one[key] / two[key] for one, two in zip(*preparation.values(), strict=True))


def main() -> None:
    """Measure and write."""
    import torch

    from dip.data.dataset import ImageStore, load_batch
    from dip.data.order import TrainingOrder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jpeg_bytes = write_jpegs(folder / "jpegs", options.images)
        dataset = ImageNet(
            kind="imagenet",
            source=str(folder / "jpegs"),
            image_size=options.image_size,
            num_classes=NUM_CLASSES,
            num_images=options.images,
        )
        preparation: dict[str, list[dict[str, float]]] = {"1 worker": [], "2 workers": []}
        for turn in range(options.rounds):
            for number, found in enumerate(preparation.values(), start=1):
                found.append(time_preparation(dataset, folder / f"store-{turn}-{number}", number))
        images = ImageStore(Store(folder / "store-0-1"), dataset)
        order = TrainingOrder(len(images), BATCH, seed=0)
        all_readers, bytes_per_image = readers(folder, folder / "jpegs", images)
        reference, *others = (read(np.arange(BATCH)) for read in all_readers.values())
        assert all(np.array_equal(other, reference) for other in others), "all read the same pixels"
        steps = iter(range(10**9))
        whole = "store, flipped, float32 in [-1, 1]"
        all_readers[whole] = lambda _: load_batch(images, order, next(steps), flip=True, device=torch.device("cpu"))
        loading = time_readers(all_readers, len(images), options.rounds)
    slow = loading["JPEGs, ImageFolder and crop"]["images_per_cpu_second"]
    medians = {
        workers: {key: statistics.median(turn[key] for turn in turns) for key in turns[0]}
        for workers, turns in preparation.items()
    }
    result = {
        "images": options.images,
        "image_size": options.image_size,
        "jpeg_bytes": jpeg_bytes,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "pillow": Image.__version__,
        "loading": {
            name: {
                **row,
                "ratio": row["images_per_cpu_second"] / slow,
                "bytes_per_image": bytes_per_image.get(name, 3 * options.image_size**2),
            }
            for name, row in loading.items()
        },
        "preparation": medians,
        "speedup": _ratio(preparation, "seconds"),
        "cpu_speedup": _ratio(preparation, "busiest_cpu_seconds"),
    }
    write_json(options.out / "loading.json", result)
    text = as_markdown(result)
    (options.out / "loading.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
