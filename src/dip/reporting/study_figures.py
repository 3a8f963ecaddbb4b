"""`dip experiment` and `dip figure`: from params.yaml to a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dip.data.dataset import ImageStore
from dip.experiments import EXPERIMENTS
from dip.experiments.gallery import class_numbers
from dip.files import atomic_write
from dip.model import build_model
from dip.paths import RunFolder, Store, experiment_data, study_folder
from dip.reporting.cost import forward_gflops
from dip.reporting.figures import Panel, figure10
from dip.reporting.measured import read_latency, read_metrics
from dip.reporting.style import house_style, save_figure
from dip.schema import Comparison, Gallery, Params, Run

_BELOW_RANK = "hidden size < 3 P²: tokens too small to carry a patch's noise"
_UNALIGNED = "trained without alignment (REPA), which the other points have"


def run_experiment(params: Params, study: str, name: str) -> None:
    """Compute what a figure of an experiment shows, and keep it beside the figure as npz.

    Raises:
        ValueError: The figure compares runs: there is nothing to compute but those.
    """
    figure = params.figures[name][study]
    if isinstance(figure, Comparison):
        raise ValueError(f"figures.{name}.{study} compares runs and is no experiment; draw it with `dip figure {name}`")
    arrays = EXPERIMENTS[figure.kind].run(figure, params)
    with atomic_write(experiment_data(study, name), "wb") as file:
        np.savez(file, **arrays)


def draw_figure(params: Params, study: str, name: str) -> None:
    """Draw a figure of params.yaml as PDF and PNG.

    Raises:
        ValueError: A run's file is missing or unreadable; it is named.
    """
    figure = params.figures[name][study]
    pdf, png = (study_folder(study) / f"{name}.{kind}" for kind in ("pdf", "png"))
    if not isinstance(figure, Comparison):
        arrays = _load(experiment_data(study, name), name)
        with house_style():
            save_figure(EXPERIMENTS[figure.kind].draw(figure, arrays), pdf, png)
        return
    some_aligned = any(params.runs[run].training.alignment is not None for run in figure.runs)
    points = {run: _point(params.runs[run], some_aligned=some_aligned) for run in figure.runs}
    for panel in figure.panels:
        for run in (run for runs in panel.series.values() for run in runs):
            _check_measured(panel.y, points[run], params.runs[run])
    panels = [
        Panel(
            title=panel.title,
            x=panel.x,
            y=panel.y,
            series={label: [points[run] for run in runs] for label, runs in panel.series.items()},
        )
        for panel in figure.panels
    ]
    figure10(panels, pdf, png, caption=params.studies[study].title + ".")


def draw_gallery(
    params: Params, run: Run, classes: Sequence[str], path: Path, *, images: Path | None = None, **settings: Any
) -> None:
    """Draw samples of any classes of a run, as PNG and as PDF beside it.

    Args:
        params: All of params.yaml.
        run: Whose weights and solver it takes.
        classes: Names or numbers.
        path: PNG to write.
        images: Folder for each sample as a PNG of its own, `<class>-<number in the class>.png`; none if not given.
        settings: Of `Gallery`: guidance, how many samples, seed.

    Raises:
        ValueError: There is no such class, or the weights are missing.
        OSError: A file cannot be written.
    """
    if path.suffix != ".png":
        raise ValueError(f"{path}: expected a name that ends in .png")
    numbers = class_numbers(classes, ImageStore(Store.of(run.dataset_name)).class_names)
    gallery = Gallery(kind="gallery", caption=run.label, run=run.name, classes=numbers, **settings)
    module = EXPERIMENTS[gallery.kind]
    arrays = module.run(gallery, params)
    with house_style():
        save_figure(module.draw(gallery, arrays), path.with_suffix(".pdf"), path)
    if images is not None:
        for label, samples in zip(numbers, arrays["images"], strict=True):
            for place, pixels in enumerate(samples):
                with atomic_write(images / f"{label:04}-{place:06}.png", "wb") as file:
                    Image.fromarray(pixels).save(file, format="PNG")


def _load(path: Path, name: str) -> dict[str, np.ndarray]:
    """Arrays of an experiment."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:  # NumPy's parser and zipfile raise anything over damaged bytes
        raise ValueError(f"{path}: cannot be read ({error}); make it with `dip experiment {name}`") from None


def _check_measured(quantity: str, point: Mapping[str, Any], run: Run) -> None:
    """Whether a run's files have what an axis shows.

    Raises:
        ValueError: They have not; the message says how they get it.
    """
    if quantity in point:
        return
    folder = RunFolder.of(run.study, run.name)
    if quantity == "latency_seconds":
        raise ValueError(f"{folder.latency}: missing; measure it: `dip latency {run.name}`")
    raise ValueError(
        f"{folder.metrics}: has no {quantity}, as it was made before there was this metric; measure again: `dip "
        f"evaluate {run.name}`, or `snakemake --profile ... -R evaluate` for all runs"
    )


def _point(run: Run, *, some_aligned: bool = False) -> dict[str, Any]:
    """A run's settings and measurements by quantity; some runs of the figure may be trained with alignment."""
    folder = RunFolder.of(run.study, run.name)
    point = read_metrics(folder.metrics)
    if folder.latency.exists():
        latency = read_latency(folder.latency)
        point.update(latency_seconds=latency["latency_seconds"], device=latency["device"])
    point.update(point.pop("patch_grid", None) or {})
    model, dataset = run.model, run.dataset
    point["patch_size"] = model.patch_size
    point["cfg_scale"], point["num_steps"] = run.sampling.cfg_scale, run.sampling.num_steps
    point["ema_decay"] = run.ema_decay
    point["gflops"] = forward_gflops(
        lambda: build_model(model, dataset.image_size, dataset.num_classes), dataset.image_size
    )
    point.update({f"head.{setting}": value for setting, value in model.head})
    notes = []
    if model.head.name == "none" and model.hidden_size < 3 * model.patch_size**2:
        notes.append(_BELOW_RANK)
    if some_aligned and run.training.alignment is None:
        notes.append(_UNALIGNED)
    if notes:
        point["note"] = "; ".join(notes)
    return point
