"""`dip sample`: images of a run, the same whatever the batch size.

B batch, C channels, H x W image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dip.data.dataset import ImageStore
from dip.diffusion.sampler import sample, to_uint8
from dip.environment import pick_device
from dip.files import atomic_write
from dip.model import build_model
from dip.paths import RunFolder, Store
from dip.progress import Progress
from dip.random import Stream, hashed, noise
from dip.schema import SamplingSpec
from dip.training.checkpoint import load_weights

_GRID_CLASSES = 10
_GRID_COLUMNS = 8


def sample_run(spec: SamplingSpec, weights: Path, target: RunFolder, *, batch_size: int = 128) -> None:
    """Write `samples.npz` (`arr_0`, uint8, NHWC) and a labelled grid.

    Args:
        spec: Model, solver, guidance and number of samples.
        weights: EMA weights.
        target: The run's folder.
        batch_size: Images at a time; it changes no image beyond rounding.

    Raises:
        ValueError: The weights are missing or of another architecture.
    """
    device = pick_device()
    dataset, sampling = spec.dataset, spec.sampling
    model = build_model(spec.model, dataset.image_size, dataset.num_classes).to(device).eval()
    load_weights(weights, model)
    class_names = ImageStore(Store.of(spec.dataset_name)).class_names
    labels = sample_labels(sampling.labels, spec.num_samples, dataset.num_classes, sampling.seed)
    shape = (3, dataset.image_size, dataset.image_size)
    images = np.empty((spec.num_samples, dataset.image_size, dataset.image_size, 3), np.uint8)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=sampling.precision == "bf16")
    with Progress("sample", total=spec.num_samples, unit="image") as progress:
        for start in range(0, spec.num_samples, batch_size):
            index = range(start, min(start + batch_size, spec.num_samples))
            # Noise comes from the CPU, so that every device starts from the same.
            x_0 = noise(sampling.seed, Stream.SAMPLING_NOISE, ((i,) for i in index), shape, torch.device("cpu"))
            y = torch.from_numpy(labels[index.start : index.stop]).to(device)
            with autocast:
                x = sample(model, x_0.to(device), y, sampling, null_class=dataset.num_classes)
            images[index.start : index.stop] = to_uint8(x).cpu().numpy()
            progress.advance(len(index))
    with atomic_write(target.grid, "wb") as file:
        sample_grid(images, labels, class_names).save(file, format="PNG")
    with atomic_write(target.samples, "wb") as file:
        np.savez(file, arr_0=images, labels=labels)


def sample_labels(kind: str, num_samples: int, num_classes: int, seed: int) -> NDArray[np.int64]:
    """Labels of the samples in one fixed shuffled order, int64 of shape (num_samples,).

    The order matters: the Inception Score is taken over chunks of consecutive samples.

    Args:
        kind: "balanced" (every class equally often, up to one) or "uniform" (drawn).
        num_samples: How many.
        num_classes: Classes in all.
        seed: Seed of the sampling.
    """
    index = np.arange(num_samples)
    if kind == "uniform":
        return (hashed(seed, 0, index) % np.uint64(num_classes)).astype(np.int64)
    return (index % num_classes)[np.argsort(hashed(seed, 1, index), kind="stable")]


def sample_grid(images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: list[str]) -> Image.Image:
    """The first samples of up to ten classes, a row per class with its name.

    Args:
        images: uint8, shape (N, H, W, 3).
        labels: Shape (N,).
        class_names: Name of every class.
    """
    side = images.shape[1]
    scale = max(1, 64 // side)
    cell, gap, margin = side * scale, 2, 150
    rows = [label for label in range(len(class_names)) if (labels == label).any()][:_GRID_CLASSES]
    size = (margin + _GRID_COLUMNS * (cell + gap), len(rows) * (cell + gap) + gap)
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for row, label in enumerate(rows):
        top = gap + row * (cell + gap)
        draw.text((6, top + cell // 2 - 6), class_names[label][:24], fill="black")
        for column, pixels in enumerate(images[labels == label][:_GRID_COLUMNS]):
            image = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST)
            grid.paste(image, (margin + column * (cell + gap), top))
    return grid
