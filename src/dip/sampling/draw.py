"""One batch of samples: labels and noise in, uint8 images out.

B batch, C channels, H x W image.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dip.diffusion.sampler import to_uint8
from dip.model import build_model
from dip.random import Stream, hashed, noise
from dip.sampling.fast import FastSampler
from dip.training.checkpoint import load_weights

if TYPE_CHECKING:
    from dip.schema import SolverSpec


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
    # ASSUMPTION: the paper does not say how the labels of its 50,000 samples are chosen: balanced, 50 a class.
    return (index % num_classes)[np.argsort(hashed(seed, 1, index), kind="stable")]


def load_sampler(spec: SolverSpec, weights: Path, device: torch.device, *, speed: str | None = None) -> FastSampler:
    """The run's model with its weights, ready to sample; errors as in `load_weights` and `FastSampler`."""
    model = build_model(spec.model, spec.dataset.image_size, spec.dataset.num_classes).to(device)
    load_weights(weights, model)
    return FastSampler(model, spec.sampling, speed=speed)


def draw_images(
    sampler: FastSampler,
    spec: SolverSpec,
    labels: NDArray[np.int64],
    counters: Iterable[tuple[int, ...]],
) -> NDArray[np.uint8]:
    """One batch of images.

    Args:
        sampler: Model, solver and guidance.
        spec: Size of the images and seed.
        labels: Shape (B,); `num_classes` stands for "no class".
        counters: Which noise each image starts from; the same counters, the same noise.

    Returns:
        uint8, shape (B, H, W, 3).

    Raises:
        ValueError: There is no such label, or an image has NaN or infinity.
    """
    num_classes = spec.dataset.num_classes
    unknown = labels[(labels < 0) | (labels > num_classes)]
    if len(unknown):  # on a GPU an embedding's error would break all later work of the process
        raise ValueError(f'there is no label {unknown[0]}; labels are 0 to {num_classes}, the last for "no class"')
    side = spec.dataset.image_size
    # Noise comes from the CPU, so that every device starts from the same.
    x_0 = noise(spec.sampling.seed, Stream.SAMPLING_NOISE, counters, (3, side, side), torch.device("cpu"))
    x = sampler(x_0.to(sampler.device), torch.from_numpy(labels).to(sampler.device))
    if not torch.isfinite(x).all():
        raise ValueError(
            "samples with NaN or infinity; see whether the losses in training.jsonl are finite to the end, and whether "
            "`precision: fp32` under sampling mends it"
        )
    return to_uint8(x).cpu().numpy()
