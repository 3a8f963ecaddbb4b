"""Making the shards of a run's samples, in one process or in several.

H x W image.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dip.environment import device_name
from dip.files import sha256
from dip.paths import RunFolder
from dip.precision import dtype_name
from dip.progress import Progress
from dip.sampling.draw import draw_images, sample_labels
from dip.sampling.fast import FastSampler
from dip.sampling.shards import Shards
from dip.schema import SamplingSpec

_log = logging.getLogger(__name__)
_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Work:
    """What a process needs to make shards."""

    spec: SamplingSpec
    weights: Path
    weights_sha256: str
    target: RunFolder
    batch_size: int
    speed: str
    dtype: str
    shards: Shards

    @classmethod
    def of(
        cls,
        spec: SamplingSpec,
        weights: Path,
        target: RunFolder,
        batch_size: int,
        shard_size: int,
        device: torch.device,
        speed: str,
    ) -> Work:
        """Shards of other weights, settings, batches, dtypes, speeds or kinds of device lie in another folder."""
        if batch_size < 1 or shard_size < 1:
            raise ValueError(f"batch_size and shard_size should be 1 or more, they are {batch_size} and {shard_size}")
        size = batch_size * -(-shard_size // batch_size)
        checksum, dtype = sha256(weights), dtype_name(spec.sampling.precision, device)
        made_by = json.dumps([json.loads(spec.canonical()), checksum, batch_size, size, device.type, dtype, speed])
        folder = target.folder / f"shards-{hashlib.sha256(made_by.encode()).hexdigest()[:12]}"
        shards = Shards(folder, spec.num_samples, size, spec.dataset.image_size)
        return cls(spec, weights, checksum, target, batch_size, speed, dtype, shards)

    @property
    def labels(self) -> NDArray[np.int64]:
        sampling = self.spec.sampling
        return sample_labels(sampling.labels, self.spec.num_samples, self.spec.dataset.num_classes, sampling.seed)


def make_shards(
    work: Work, sampler: FastSampler, place: float, *, wait: bool, progress: Progress | None = None
) -> None:
    """Make shards until all are made or held by others.

    Args:
        work: What is sampled.
        sampler: Model, solver and guidance.
        place: Where among the shards to begin, in [0, 1), so that processes begin far from each other.
        wait: Whether to stay until all shards are there, and make those whose process died.
        progress: A bar that counts all samples.
    """
    shards, labels = work.shards, work.labels
    shown = shards.num_made()
    while shards.missing() and shards.folder.exists():  # not any more where another process has merged them
        with shards.claim(int(place * len(shards))) as shard:
            if shard is not None:
                images = []
                for index in _batches(shards.samples(shard), work.batch_size):
                    images.append(draw_images(sampler, work.spec, labels[index], ((i,) for i in index)))
                    if progress:
                        progress.advance(len(index))
                        shown += len(index)
                shards.write(shard, np.concatenate(images), device_name(sampler.device))
        if progress and (made := shards.num_made()) > shown:  # by other processes
            progress.advance(made - shown)
            shown = made
        if shard is None and not wait:
            return
        if shard is None:
            time.sleep(_WAIT_SECONDS)


def progress_of(work: Work) -> Progress:
    """A bar over all samples; those that an earlier call made count."""
    made, total = work.shards.num_made(), work.spec.num_samples
    if made:
        _log.info("going on with %d of %d samples", made, total)
    return Progress("sample", total=total, initial=made, unit="image")


def _batches(samples: range, batch_size: int) -> list[range]:
    return [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
