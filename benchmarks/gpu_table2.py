"""A row of Table 2 in the `small` study on a machine that has PyTorch and not the workflow.

The same data, order, noise, objective, optimiser, sampler and metrics as the workflow's rules, from the same functions;
without checkpoints, and with all images in the memory of the device.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dip.data.order import TrainingOrder
from dip.data.photographs import held_out_crops, training_crops
from dip.diffusion.objective import draw
from dip.environment import pick_device
from dip.evaluation.features import Extractor, Features, extract
from dip.evaluation.frechet import frechet_distance
from dip.evaluation.inception_score import inception_score
from dip.evaluation.manifold import precision_recall
from dip.evaluation.photo_network import (
    PhotoNetwork,
    load_photo_network,
    save_photo_network,
    train_photo_network,
)
from dip.model import DiP, build_model
from dip.precision import autocast
from dip.progress import Progress
from dip.random import Stream, uniform
from dip.sampling.draw import draw_images, sample_labels
from dip.sampling.fast import FastSampler
from dip.speed import set_speed
from dip.training.ema import EMA
from dip.training.optimization import (
    Objective,
    gradient_norm,
    losses_of,
    make_optimizer,
    set_learning_rate,
    total_loss,
)

if TYPE_CHECKING:
    from dip.schema import Run

Pixels = NDArray[np.uint8]
_BATCH = 250  # images that are drawn at a time


class Evaluator:
    """Crops, feature network and reference, made once for all rows of one dataset."""

    def __init__(self) -> None:
        self.images: Pixels = np.empty(0, np.uint8)
        self.labels: NDArray[np.int64] = np.empty(0, np.int64)
        self._run: Any = None
        self._extractor: Extractor
        self._reference: Features

    def prepare(self, run: Run) -> None:
        """Make what the run's evaluator needs, unless it is there."""
        if self._run is not None and (self._run.dataset, self._run.evaluation) == (run.dataset, run.evaluation):
            return
        dataset, settings = run.dataset, run.evaluation
        self.images, self.labels = training_crops(dataset)
        network = self._network(dataset, settings.extractor)
        self._extractor = Extractor("photo network", network, "", verified=False, image_size=dataset.image_size)
        reference, _ = held_out_crops(dataset, settings.reference.num_images, settings.reference.seed)
        self._reference = extract(self._extractor, reference, device=pick_device())
        self._run = run

    def _network(self, dataset: Any, extractor: Any) -> PhotoNetwork:
        """Trained on the CPU, as the workflow does, and kept: that takes minutes."""
        key = json.dumps([dataset, extractor], default=vars, sort_keys=True)
        kept = Path(f"build/photo-network-{zlib.crc32(key.encode()):08x}.safetensors")
        if not kept.is_file():
            steps, seed = extractor.num_steps, extractor.seed
            network = train_photo_network(self.images, self.labels, dataset.num_classes, num_steps=steps, seed=seed)
            save_photo_network(network, kept)
        return load_photo_network(kept)

    def metrics(self, images: Pixels) -> dict[str, float]:
        """What metrics.json calls by the same names."""
        real, drawn = self._reference, extract(self._extractor, images, device=pick_device())
        settings = self._run.evaluation
        precision, recall = precision_recall(real.pool, drawn.pool, settings.neighbours, device=pick_device())
        return {
            "fid": frechet_distance(real.pool, drawn.pool),
            "sfid": frechet_distance(real.spatial, drawn.spatial),
            "inception_score": inception_score(drawn.probabilities, settings.inception_score_chunk),
            "precision": precision,
            "recall": recall,
        }


def table2(run: Run, seed: int, evaluator: Evaluator) -> dict[str, Any]:
    """Train, sample and evaluate a row; seconds of training and sampling beside the metrics."""
    evaluator.prepare(run)
    start = time.perf_counter()
    model, loss = train(run, seed, evaluator.images, evaluator.labels)
    trained = time.perf_counter()
    images = sample(run, seed, model)
    sampled = time.perf_counter()
    return {
        **evaluator.metrics(images),
        "num_samples": len(images),
        "num_steps": run.num_steps,
        "loss": loss,
        "training_seconds": trained - start,
        "sampling_seconds": sampled - trained,
    }


def train(run: Run, seed: int, images: Pixels, labels: NDArray[np.int64]) -> tuple[DiP, float]:
    """Averaged weights in a model of their own, and the mean loss of the last tenth of the steps."""
    device = pick_device()
    training = run.training.model_copy(update={"seed": seed})
    torch.manual_seed(seed)
    model = build_model(run.model, run.dataset.image_size, run.dataset.num_classes).to(device)
    set_speed(model, None)
    model.train()
    objective, optimizer = Objective(model, None, training), make_optimizer(model, training)
    ema = EMA(model, training.ema_decay)
    total, last = torch.zeros((), device=device), max(1, run.num_steps // 10)
    order = TrainingOrder(len(images), training.batch_size, seed)
    pixels, classes = torch.from_numpy(images).to(device), torch.from_numpy(labels).to(device)
    with Progress("training", total=run.num_steps, unit="step") as bar:
        for step in range(run.num_steps):
            set_learning_rate(optimizer, training, step, run.num_steps)
            x_1, y = batch_of(pixels, classes, order, step, flip=training.horizontal_flip)
            path, y = draw(x_1, y, training, step=step, null_class=run.dataset.num_classes)
            with autocast(training.precision, device):
                losses = losses_of(objective, path, y, x_1)
            total_loss(losses, training).backward()
            gradient_norm(optimizer, training.gradient_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            ema.update(model, step + 1)
            if step >= run.num_steps - last:
                total += losses[0].detach() / last
            bar.advance()
    averaged = build_model(run.model, run.dataset.image_size, run.dataset.num_classes).to(device)
    averaged.load_state_dict(ema.shadow)
    return averaged, total.item()


def batch_of(pixels: Tensor, classes: Tensor, order: TrainingOrder, step: int, *, flip: bool) -> tuple[Tensor, Tensor]:
    """As `dip.data.dataset.load_batch`, from images (n, H, W, C) that lie on the device."""
    indices = torch.from_numpy(order.indices(step)).to(pixels.device)
    x_1 = pixels[indices].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # (B, C, H, W)
    if flip:
        flipped = torch.from_numpy(uniform(order.seed, Stream.FLIP, step, np.arange(order.batch_size)) < 0.5)
        x_1 = torch.where(flipped.to(x_1.device)[:, None, None, None], x_1.flip(3), x_1)
    return x_1, classes[indices]


def sample(run: Run, seed: int, model: DiP) -> Pixels:
    """The run's samples, uint8 (n, H, W, C); the seed is that of the noise, as of the training."""
    run = run.model_copy(update={"sampling": run.sampling.model_copy(update={"seed": seed})})
    sampler = FastSampler(model, run.sampling)
    labels = sample_labels(run.sampling.labels, run.num_samples, run.dataset.num_classes, seed)
    return np.concatenate(list(_batches(sampler, run, labels)))


def _batches(sampler: FastSampler, run: Run, labels: NDArray[np.int64]) -> Iterator[Pixels]:
    for start in range(0, len(labels), _BATCH):
        numbers = range(start, min(start + _BATCH, len(labels)))
        yield draw_images(sampler, run, labels[numbers.start : numbers.stop], [(number,) for number in numbers])
