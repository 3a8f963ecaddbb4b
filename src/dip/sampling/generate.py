"""`dip sample`: images of a run, the same whatever the number of processes and interruptions.

B batch, C channels, H x W image.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dip.data.dataset import ImageStore
from dip.diffusion.evaluations import nfe_label, num_function_evaluations
from dip.environment import describe_environment, pick_device
from dip.files import atomic_write, write_json
from dip.paths import RunFolder, Store
from dip.sampling.draw import load_sampler
from dip.sampling.workers import Work, make_shards, progress_of
from dip.schema import SamplingSpec
from dip.training.distributed import Place

_log = logging.getLogger(__name__)
_GRID_CLASSES = 10
_GRID_COLUMNS = 8


def sample_run(
    spec: SamplingSpec,
    weights: Path,
    target: RunFolder,
    *,
    batch_size: int = 128,
    shard_size: int = 256,
    speed: str | None = None,
    join: bool = False,
) -> None:
    """Write `samples.npz` (`arr_0`, uint8, NHWC), a labelled grid, and the settings beside them.

    The samples are made in shards, which lie in the folder until all are there and one npz is made of them. Any
    process makes any shard: those that torchrun or srun started, and those of other calls with `join`. To go on after
    a kill, run the same command again.

    Args:
        spec: Model, solver, guidance and number of samples.
        weights: EMA weights.
        target: The run's folder.
        batch_size: Images at a time; it changes no image beyond rounding.
        speed: As `FastSampler` takes it; it changes no image beyond rounding.
        shard_size: Images of a shard, rounded up to whole batches; a kill loses no more than those.
        join: Only make shards of a sampling that another call began, and leave the rest to it.

    Raises:
        ValueError: The weights are missing or of another architecture; `join`, and nothing has begun.
        OSError: No room, for example; shards that are finished stay.
    """
    place = Place.of(os.environ)
    device = pick_device(place.local_rank)
    class_names = ImageStore(Store.of(spec.dataset_name)).class_names
    sampler = load_sampler(spec, weights, device, speed=speed)  # before anything is written
    sampler.settle(min(batch_size, spec.num_samples), spec.dataset.image_size)
    work = Work.of(spec, weights, target, batch_size, shard_size, device, sampler.speed)
    if join and not work.shards.folder.exists():
        raise ValueError(
            f"{work.shards.folder}: no such folder, so there is no sampling to join, at least none of this batch size, "
            "shard size, speed and kind of device; call without --join, or with the options of the call that began"
        )
    first = place.rank == 0 and not join
    if not first and target.samples.exists():
        return  # this process came so late that the others have done it all
    if not join:
        work.shards.folder.mkdir(parents=True, exist_ok=True)
    with progress_of(work) if first else contextlib.nullcontext() as progress:
        make_shards(work, sampler, place.rank / place.size, wait=first, progress=progress)
    if first:
        _merge(work, class_names)


def sample_grid(images: NDArray[np.uint8], labels: NDArray[np.int64], class_names: list[str]) -> Image.Image:
    """The first samples, up to eight, of up to ten classes, a row per class with its name.

    Args:
        images: uint8, shape (N, H, W, 3).
        labels: Shape (N,).
        class_names: Name of every class.
    """
    side = images.shape[1]
    scale = max(1, 64 // side)
    cell, gap = side * scale, 2
    letters = max(1, cell // 128)  # names grow with the picture, which is seen as a whole
    margin = 150 * letters
    rows = [label for label in range(len(class_names)) if (labels == label).any()][:_GRID_CLASSES]
    columns = max(min(np.count_nonzero(labels == label), _GRID_COLUMNS) for label in rows)
    size = (margin + columns * (cell + gap), len(rows) * (cell + gap) + gap)
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for row, label in enumerate(rows):
        top = gap + row * (cell + gap)
        name = class_names[label].replace("_", " ")[:24]
        draw.text((6 * letters, top + cell // 2), name, fill="black", font=_font(name, 11 * letters), anchor="lm")
        for column, pixels in enumerate(images[labels == label][:_GRID_COLUMNS]):
            image = Image.fromarray(pixels).resize((cell, cell), Image.Resampling.NEAREST)
            grid.paste(image, (margin + column * (cell + gap), top))
    return grid


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """That of the figures, or another that has the letters; Pillow's own has none beyond ASCII."""
    from dip.fonts import font_for  # imports matplotlib

    return ImageFont.truetype(font_for(text), size)


def _shown_samples(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which samples `sample_grid` shows of all."""
    return np.concatenate(
        [np.flatnonzero(labels == label)[:_GRID_COLUMNS] for label in np.unique(labels)[:_GRID_CLASSES]]
    )


def _merge(work: Work, class_names: list[str]) -> None:
    """Make the npz of the shards, and what lies beside it; the npz, the file others wait for, comes last."""
    shards, target, labels = work.shards, work.target, work.labels
    with shards.hold("merge"):
        if shards.missing():
            _log.info("another process has merged the shards of %s", target.folder)
            return
        shown = _shown_samples(labels)
        with atomic_write(target.grid, "wb") as file:
            grid = sample_grid(np.stack([shards.image(i) for i in shown]), labels[shown], class_names)
            grid.save(file, format="PNG")
        write_json(target.sampling, _settings(work))
        shards.merge(target.samples, labels)
        done = shards.folder.with_suffix(".done")
        shutil.rmtree(done, ignore_errors=True)  # of a call that was killed in the middle of this
        shards.folder.rename(done)  # gone at once for those who have joined
        for folder in target.folder.glob("shards-*"):  # also those of settings that were given up
            shutil.rmtree(folder, ignore_errors=True)


def _settings(work: Work) -> dict[str, object]:
    """All that the samples were made with."""
    spec, sampling = work.spec, work.spec.sampling
    return {
        "num_samples": spec.num_samples,
        "image_size": spec.dataset.image_size,
        "sampling": sampling.model_dump(mode="json"),
        "nfe": nfe_label(sampling),
        "num_function_evaluations": num_function_evaluations(sampling),
        "noise": "sample i from (seed, i), float32, drawn on the CPU",
        "weights": {
            "sha256": work.weights_sha256,
            "average": "ema",
            "ema_decay": spec.ema_decay,
            "epochs": spec.epochs,
        },
        "batch_size": work.batch_size,
        "devices": work.shards.devices(),
        "dtype": work.dtype,
        "speed": work.speed,
        "versions": describe_environment(),
    }
