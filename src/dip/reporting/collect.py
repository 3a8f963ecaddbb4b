"""`dip table` and `dip figure`: from params.yaml and the files of its runs to a table or a figure."""

from __future__ import annotations

import json
from typing import Any

from dip.diffusion.sampler import nfe_label
from dip.model import build_model
from dip.paths import RunFolder, study_folder
from dip.reporting.cost import forward_gflops
from dip.reporting.figures import Panel, figure10
from dip.reporting.measured import MeasuredRow
from dip.reporting.tables import build_table
from dip.reporting.tables import write_table as write
from dip.schema import Params, Run

_BELOW_RANK = "hidden size < 3 P²: tokens too small to carry a patch's noise"


def write_table(params: Params, study: str, name: str) -> None:
    """Write a table of params.yaml as CSV, Markdown and LaTeX.

    Raises:
        ValueError: A run's file is missing or unreadable; it is named.
    """
    table = params.tables[name][study]
    rows = []
    for section, runs in table.sections.items():
        for run in (params.runs[name] for name in runs):
            row = MeasuredRow.load(
                RunFolder.of(study, run.name).folder,
                section=section,
                label=run.label,
                run=run.name,
                epochs=run.epochs,
                nfe=nfe_label(run.sampling),
                training_folder=RunFolder.of(study, run.checkpoint.run if run.checkpoint else run.name).folder,
            )
            rows.append(row)
    content = build_table(table.layout, rows, published=table.published)
    write(content, study_folder(study) / name, caption=table.caption)


def draw_figure(params: Params, study: str, name: str) -> None:
    """Draw a figure of params.yaml as PDF and PNG.

    Raises:
        ValueError: A run's file is missing or unreadable; it is named.
    """
    figure = params.figures[name][study]
    points = {run: _point(params.runs[run]) for run in figure.runs}
    panels = [
        Panel(
            title=panel.title,
            x=panel.x,
            y=panel.y,
            series={label: [points[run] for run in runs] for label, runs in panel.series.items()},
        )
        for panel in figure.panels
    ]
    folder = study_folder(study)
    figure10(panels, folder / f"{name}.pdf", folder / f"{name}.png", caption=params.studies[study].title + ".")


def _point(run: Run) -> dict[str, Any]:
    """A run's settings and measurements by quantity."""
    folder = RunFolder.of(run.study, run.name)
    try:
        point = json.loads(folder.metrics.read_text())
        if folder.latency.exists():
            latency = json.loads(folder.latency.read_text())
            point.update(latency_seconds=latency["latency_seconds"], device=latency["device"])
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"run '{run.name}' has no usable results ({error}); remove its folder and run again") from None
    model, dataset = run.model, run.dataset
    point["patch_size"] = model.patch_size
    point["gflops"] = forward_gflops(
        lambda: build_model(model, dataset.image_size, dataset.num_classes), dataset.image_size
    )
    for setting in ("depth", "width"):
        if hasattr(model.head, setting):
            point[f"head.{setting}"] = getattr(model.head, setting)
    if model.head.name == "none" and model.hidden_size < 3 * model.patch_size**2:
        point["note"] = _BELOW_RANK
    return point
