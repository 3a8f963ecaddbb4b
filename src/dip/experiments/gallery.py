"""Samples of chosen classes under stronger guidance than the tables have (Figures 7, 9 and 13-30).

K classes, S samples of each, H x W image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dip.data.dataset import ImageStore
from dip.data.synsets import same_class
from dip.environment import pick_device
from dip.paths import RunFolder, Store
from dip.progress import Progress
from dip.sampling.draw import draw_images, load_sampler
from dip.schema import Gallery, Params, SolverSpec

_BATCH_SIZE = 64  # images at a time
_DPI = 300  # dots per inch at which a pixel of an image is a dot
_LABEL_DOTS = 40
_LEAST_DOTS = 96  # small images are enlarged to it
_GAP_DOTS = 4


def run(settings: Gallery, params: Params) -> dict[str, NDArray]:
    """Draw the samples with the run's weights and solver.

    The noise of a sample depends on the seed, its class and its place in the class alone.

    Args:
        settings: Classes, guidance and how many samples.
        params: All of params.yaml.

    Returns:
        `images`, uint8 of shape (K, S, H, W, 3).

    Raises:
        ValueError: The weights are missing, or the dataset names a class otherwise than the gallery does.
    """
    chosen = params.runs[settings.run]
    check_names(settings.classes, ImageStore(Store.of(chosen.dataset_name)).class_names)
    own = {key: getattr(settings, key) for key in ("cfg_scale", "cfg_interval", "seed")}
    sampling = chosen.sampling.model_copy(update=own)
    spec = chosen.part(SolverSpec).model_copy(update={"sampling": sampling})
    sampler = load_sampler(spec, RunFolder.of(chosen.study, chosen.name).weights(chosen), pick_device())
    images, places = [], range(settings.num_samples)
    with Progress("gallery", total=len(settings.classes) * len(places), unit="image") as progress:
        for label in settings.classes:
            for start in range(0, len(places), _BATCH_SIZE):
                batch = places[start : start + _BATCH_SIZE]
                counters = ((label, place) for place in batch)
                images.append(draw_images(sampler, spec, np.full(len(batch), label), counters))
                progress.advance(len(batch))
    drawn = np.concatenate(images)
    return {"images": drawn.reshape(len(settings.classes), len(places), *drawn.shape[1:])}


def draw(settings: Gallery, arrays: Mapping[str, NDArray]) -> Figure:
    """A block of samples under the name and number of each class; in the PNG a pixel of an image is a dot.

    Images below 96 pixels are enlarged by a whole factor.
    """
    columns = min(settings.columns, settings.num_samples)
    blocks = [_block(images, columns) for images in arrays["images"]]
    height, width = blocks[0].shape[:2]
    total = len(blocks) * (height + _LABEL_DOTS)
    figure = Figure(dpi=_DPI)
    names = [f"{name.replace('_', ' ')} ({label})" for label, name in settings.classes.items()]
    widest = max(figure.text(0, 0, name).get_window_extent().width for name in names)
    figure.clear()
    whole = max(width, math.ceil(widest))  # a name may be wider than the few samples below it
    figure.set_size_inches(whole / _DPI, total / _DPI)
    for place, (name, block) in enumerate(zip(names, blocks, strict=True)):
        top = total - place * (height + _LABEL_DOTS)
        figure.text(0, (top - _LABEL_DOTS / 2) / total, name, va="center")
        ax = figure.add_axes((0, (top - _LABEL_DOTS - height) / total, width / whole, height / total))
        ax.imshow(block, interpolation="none", aspect="auto")
        ax.set_axis_off()
    return figure


def class_numbers(wanted: Sequence[str], class_names: Sequence[str]) -> dict[int, str]:
    """Classes that are given by number or by name, by number.

    Raises:
        ValueError: There is no such class, or more than one of that name.
    """
    found = {}
    for text in wanted:
        numbers = [number for number, name in enumerate(class_names) if same_class(name, text)]
        if text.isdecimal() and int(text) < len(class_names):
            numbers = [int(text)]
        if len(numbers) != 1:
            how = f"several classes ({', '.join(map(str, numbers))})" if numbers else "no class"
            first = ", ".join(class_names[:3])
            raise ValueError(f"'{text}' is {how} of the dataset; it has {len(class_names)}, the first ones {first}")
        found[numbers[0]] = class_names[numbers[0]]
    return found


def check_names(classes: Mapping[int, str], class_names: Sequence[str]) -> None:
    """Raise ValueError where the dataset names a class otherwise; only the first of several names is compared."""
    for number, name in classes.items():
        if not same_class(name, class_names[number]):
            raise ValueError(f"class {number} of the dataset is '{class_names[number]}', not '{name}'")


def _block(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Images (S, H, W, 3) in rows of `columns`, enlarged to a size that can be seen, with white between them."""
    scale = -(-_LEAST_DOTS // images.shape[2])
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    images = np.pad(images, ((0, 0), (0, _GAP_DOTS), (0, _GAP_DOTS), (0, 0)), constant_values=255)
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    block = np.full((rows * columns, height, width, 3), 255, np.uint8)
    block[:count] = images
    return block.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
