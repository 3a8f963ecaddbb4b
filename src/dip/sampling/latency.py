"""`dip latency`: seconds for one image, measured as the paper does: batch 1, all steps, guidance."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

from dip.diffusion.sampler import nfe_label, num_function_evaluations, sample
from dip.environment import describe_environment, device_name, pick_device
from dip.files import write_json
from dip.model import build_model
from dip.schema import SamplingSpec
from dip.training.checkpoint import load_weights


def measure_latency(spec: SamplingSpec, weights: Path, target: Path, *, repeats: int = 5) -> None:
    """Write the median time of one image after one warm-up, and its spread.

    Args:
        spec: Model, solver and guidance.
        weights: EMA weights.
        target: JSON file to write.
        repeats: Images timed, one after the other.
    """
    device = pick_device()
    dataset, sampling = spec.dataset, spec.sampling
    model = build_model(spec.model, dataset.image_size, dataset.num_classes).to(device).eval()
    load_weights(weights, model)
    x_0 = torch.randn(1, 3, dataset.image_size, dataset.image_size, device=device)
    y = torch.zeros(1, dtype=torch.int64, device=device)
    seconds = []
    with torch.autocast(device.type, torch.bfloat16, enabled=sampling.precision == "bf16"):
        for _ in range(repeats + 1):
            start = time.perf_counter()
            sample(model, x_0, y, sampling, null_class=dataset.num_classes)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    timed = np.array(seconds[1:])
    content = {
        "latency_seconds": float(np.median(timed)),
        "latency_spread_seconds": float(timed.max() - timed.min()),
        "repeats": repeats,
        "batch_size": 1,
        "num_steps": sampling.num_steps,
        "nfe": nfe_label(sampling),
        "num_function_evaluations": num_function_evaluations(sampling),
        "device": device_name(device),
        "num_threads": torch.get_num_threads(),
        "dtype": sampling.precision,
        "versions": describe_environment(),
    }
    write_json(target, content)
