"""Overfitting a single photograph by models with and without a Patch Detailer Head (section 3.2, Figure 3).

The paper overfits a DiT and DiP on one image in pixel space and shows what each draws. Here every model sees the
same crop, noise and times at every step, with a learning rate of its own. What is measured is what it draws: samples
from a fixed noise by the weights' moving average, against the photograph.

Shapes: M models, E measurements, B batch, S side of the crop in pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio
from torch import Tensor

from dip.data.crop import box_reduce
from dip.data.photographs import Pixels, load_photograph
from dip.diffusion.objective import draw as draw_step
from dip.diffusion.objective import velocity_loss
from dip.diffusion.sampler import sample, to_uint8
from dip.environment import pick_device
from dip.model import DiP, build_model
from dip.precision import autocast
from dip.progress import Progress
from dip.random import Stream, noise
from dip.reporting.style import COLUMN_INCHES, MARKERS
from dip.schema import Overfit, Params, Run, Sampling, Training
from dip.training.ema import EMA
from dip.training.optimization import make_optimizer, set_learning_rate


def run(settings: Overfit, params: Params) -> dict[str, NDArray[Any]]:
    """Train every model on the photograph and draw it in between and at the end.

    Args:
        settings: The figure of params.yaml.
        params: All of it, for the runs that the series name.

    Returns:
        photograph: uint8, shape (S, S, 3).
        steps: Steps after which was measured, shape (E,).
        psnr: Peak signal-to-noise ratio in dB, mean over the samples, shape (M, E).
        samples: The first sample at the last step, uint8, shape (M, S, S, 3).

    Raises:
        ValueError: There is no such photograph, the crop lies outside it, or a training diverged.
    """
    photograph = crop_photograph(settings)
    steps = [*range(settings.measure_every, settings.num_steps, settings.measure_every), settings.num_steps]
    psnr, samples = [], []
    with Progress("overfit", total=len(settings.series) * settings.num_steps, unit="step") as progress:
        for label, series in settings.series.items():
            chosen = params.runs[series.run]
            training = _training_of(settings, chosen, series.learning_rate)
            drawn = []
            for step, model in _learn(chosen, training, photograph, settings.num_steps):
                progress.advance()
                if step in steps:
                    drawn.append(_draw_samples(model, chosen.sampling, settings))
                    progress.note(f"{label}: {_psnr(photograph, drawn[-1]):.1f} dB")
            psnr.append([_psnr(photograph, images) for images in drawn])
            samples.append(drawn[-1][0])
    return {
        "photograph": photograph,
        "steps": np.array(steps),
        "psnr": np.array(psnr),
        "samples": np.stack(samples),
    }


def crop_photograph(settings: Overfit) -> Pixels:
    """The square to be learned, uint8, shape (S, S, 3).

    Raises:
        ValueError: There is no such photograph, or the crop lies outside it.
    """
    pixels = box_reduce(load_photograph(settings.photograph), settings.box_filter)
    crop = settings.crop
    height, width = pixels.shape[:2]
    if crop.top + crop.size > height or crop.left + crop.size > width:
        raise ValueError(
            f"crop: rows {crop.top} to {crop.top + crop.size} and columns {crop.left} to {crop.left + crop.size} lie "
            f"outside photograph '{settings.photograph}', which is {width} x {height} pixels after box_filter "
            f"{settings.box_filter}; choose a smaller crop, top or left"
        )
    return crop.cut(pixels)


def _training_of(settings: Overfit, chosen: Run, learning_rate: float) -> Training:
    """The run's optimiser, EMA, times and precision, on one image that is never flipped and always has its label."""
    # ASSUMPTION: half a cosine without warm-up, and the label is never dropped; the paper says neither of Figure 3.
    return chosen.training.model_copy(
        update={
            "learning_rate": learning_rate,
            "schedule": "cosine",
            "warmup_steps": 0,
            "batch_size": settings.batch_size,
            "label_dropout": 0.0,
            "alignment": None,
            "seed": settings.seed,
        }
    )


def _learn(chosen: Run, training: Training, photograph: Pixels, num_steps: int) -> Iterator[tuple[int, DiP]]:
    """Train a model on one image; after every step, its number and the model with averaged weights.

    The averaged model is one object, which is up to date when its step is handed out.
    """
    device = pick_device()
    torch.manual_seed(training.seed)
    model = build_model(chosen.model, len(photograph), num_classes=1).to(device)
    averaged = copy.deepcopy(model).eval()
    ema = EMA(model, training.ema_decay)
    x_1 = torch.from_numpy(photograph).to(device).permute(2, 0, 1).float() / 127.5 - 1
    x_1 = x_1.expand(training.batch_size, -1, -1, -1)  # (B, 3, S, S)
    y = torch.zeros(training.batch_size, dtype=torch.int64, device=device)
    optimizer = make_optimizer(model, training)
    for step in range(num_steps):
        set_learning_rate(optimizer, training, step, num_steps)
        path, labels = draw_step(x_1, y, training, step=step, null_class=1)
        with autocast(training.precision, device):
            loss = velocity_loss(model(path.x_t, path.t, labels), path.v)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss of run '{chosen.name}' is not finite at step {step + 1}; lower its learning_rate in the "
                "series of the figure"
            )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(model, step + 1)
        averaged.load_state_dict(ema.shadow)
        yield step + 1, averaged


def _draw_samples(model: DiP, sampling: Sampling, settings: Overfit) -> NDArray[np.uint8]:
    """Samples from the figure's noise by the run's solver without guidance, uint8, shape (num_samples, S, S, 3)."""
    device = next(model.parameters()).device
    shape = (3, settings.crop.size, settings.crop.size)
    counters = ((index,) for index in range(settings.num_samples))
    x_0: Tensor = noise(settings.seed, Stream.SAMPLING_NOISE, counters, shape, torch.device("cpu")).to(device)
    y = torch.zeros(settings.num_samples, dtype=torch.int64, device=device)
    with autocast(sampling.precision, device):
        x = sample(model, x_0, y, sampling.model_copy(update={"cfg_scale": 1.0}), null_class=1)
    return to_uint8(x).cpu().numpy()


def _psnr(photograph: Pixels, images: NDArray[np.uint8]) -> float:
    """Mean PSNR in dB of images (n, S, S, 3) against the photograph."""
    return float(np.mean([peak_signal_noise_ratio(photograph, image, data_range=255) for image in images]))


def draw(settings: Overfit, arrays: dict[str, NDArray[Any]]) -> Figure:
    """PSNR over steps, then the photograph and what each model drew, each above its details.

    Args:
        settings: The figure of params.yaml.
        arrays: What `run` returns.
    """
    images = [arrays["photograph"], *arrays["samples"]]
    results = zip(settings.series, arrays["psnr"][:, -1], strict=True)
    titles = ["Photograph", *(f"{label}, {decibels:.1f} dB" for label, decibels in results)]
    details = settings.details
    figure = Figure(figsize=(2 * COLUMN_INCHES, 2.35), layout="constrained")
    curve, panels = figure.subfigures(1, 2, squeeze=False, width_ratios=[1, len(images) * 0.62])[0]
    _draw_curve(curve.subplots(), settings, arrays)
    ratios = [len(details), 1] if details else [1]
    axes = panels.subplots(len(ratios), len(images), height_ratios=ratios, squeeze=False)
    colours = sns.color_palette("bright", len(details) + 1)[1:]
    for column, (title, image) in enumerate(zip(titles, images, strict=True)):
        _show(axes[0, column], image)
        axes[0, column].set_title(title)
        for detail, colour in zip(details, colours, strict=True):
            corner = (detail.left - 0.5, detail.top - 0.5)
            axes[0, column].add_patch(Rectangle(corner, detail.size, detail.size, fill=False, edgecolor=colour))
        if details:
            axes[1, column].set_axis_off()
        for index, (detail, colour) in enumerate(zip(details, colours, strict=True)):
            inset = axes[1, column].inset_axes((index / len(details), 0, 0.97 / len(details), 1))
            _show(inset, detail.cut(image))
            for spine in inset.spines.values():
                spine.set(visible=True, edgecolor=colour)
    return figure


def _draw_curve(ax: Axes, settings: Overfit, arrays: dict[str, NDArray[Any]]) -> None:
    colours = sns.color_palette("colorblind", len(settings.series))
    for index, label in enumerate(settings.series):
        style = {"color": colours[index], "marker": MARKERS[index % len(MARKERS)], "markersize": 3, "linewidth": 1.1}
        ax.plot(arrays["steps"], arrays["psnr"][index], label=label, **style)
    ax.set(xlabel="Training steps", ylabel="PSNR (dB) ↑")
    ax.legend(frameon=False)
    sns.despine(ax=ax)


def _show(ax: Axes, image: Pixels) -> None:
    """An image with square pixels and no ticks."""
    ax.imshow(image, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
