"""One batch of samples: labels, noise and model in, uint8 images out.

B batch, C channels, H x W image.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dip.diffusion.sampler import sample, to_uint8
from dip.model import build_model
from dip.random import Stream, hashed, noise
from dip.schema import SamplingSpec, SolverSpec
from dip.training.checkpoint import load_weights


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


def load_model(spec: SolverSpec, weights: Path, device: torch.device) -> nn.Module:
    """The run's model with its weights, in evaluation mode; errors as in `load_weights`."""
    model = build_model(spec.model, spec.dataset.image_size, spec.dataset.num_classes).to(device).eval()
    load_weights(weights, model)
    return model


def draw_images(
    model: nn.Module,
    spec: SamplingSpec,
    labels: NDArray[np.int64],
    counters: Iterable[tuple[int, ...]],
    device: torch.device,
) -> NDArray[np.uint8]:
    """One batch of images.

    Args:
        model: On the device, in evaluation mode.
        spec: Solver and guidance, and the size of the images.
        labels: Shape (B,).
        counters: Which noise each image starts from; the same counters, the same noise.
        device: Where it is computed.

    Returns:
        uint8, shape (B, H, W, 3).
    """
    side, sampling = spec.dataset.image_size, spec.sampling
    # Noise comes from the CPU, so that every device starts from the same.
    x_0 = noise(sampling.seed, Stream.SAMPLING_NOISE, counters, (3, side, side), torch.device("cpu"))
    y = torch.from_numpy(labels).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=sampling.precision == "bf16"):
        x = sample(model, x_0.to(device), y, sampling, null_class=spec.dataset.num_classes)
    return to_uint8(x).cpu().numpy()
