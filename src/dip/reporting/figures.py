"""Figure 10 and others of its form: quality and cost of runs against one of their settings."""

from __future__ import annotations

import math
import string
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    StrMethodFormatter,
)

from dip.reporting.style import COLUMN_INCHES, MARKERS, house_style, save_figure


@dataclass(frozen=True)
class _Quantity:
    label: str
    scale: Literal["linear", "log2", "decay"] = "linear"  # log2: a setting that is doubled from point to point
    is_metric: bool = False  # measured by an evaluator on samples
    is_time: bool = False  # depends on the device


_QUANTITIES = {
    "head.depth": _Quantity("Head depth (stages)"),
    "head.width": _Quantity("Head width (channels)", scale="log2"),
    "patch_size": _Quantity("Patch size (pixels)", scale="log2"),
    "cfg_scale": _Quantity("Guidance scale"),
    "num_steps": _Quantity("Solver steps"),
    "ema_decay": _Quantity("EMA decay", scale="decay"),
    "fid": _Quantity("FID ↓", is_metric=True),
    "sfid": _Quantity("sFID ↓", is_metric=True),
    "inception_score": _Quantity("IS ↑", is_metric=True),
    "precision": _Quantity("Precision ↑", is_metric=True),
    "recall": _Quantity("Recall ↑", is_metric=True),
    "seams": _Quantity("Seams (none: 1)", is_metric=True),
    "period": _Quantity("Patch period (none: 1)", is_metric=True),
    "gflops": _Quantity("GFLOP/pass ↓"),
    "latency_seconds": _Quantity("Seconds/image ↓", is_time=True),
}
_ROW_INCHES = 1.4
_LINE_INCHES = 0.125
_ENTRY_INCHES = 0.137  # of a legend
_TITLE_CHARACTERS = 25  # that fit above a panel of half the width
_LABEL_CHARACTERS = 50  # of a legend's line
_CHARACTER_SHARE = 0.042  # of half the width, that a character of a tick takes

# A run's values by quantity, for example the content of its metrics.json with "patch_size" and "gflops" added.
# A metric needs "feature_extractor" and "num_samples" beside it, a time may have "device"; "note" says what is
# special about the run.
Point = Mapping[str, Any]
Styles = dict[str, tuple[Any, str]]  # colour and marker of each label


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: What stands above it.
        x: Quantity of the horizontal axis, as "patch_size".
        y: Quantity of the vertical axis, as "fid".
        series: Points by the label of their line.
    """

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[Point]]


def figure10(panels: Sequence[Panel], path_pdf: str | Path, path_png: str | Path, *, caption: str = "") -> None:
    """Draw panels in a grid of two columns, at the width of one column of a page.

    Colours and markers of a label are the same in all panels. A point with a "note" is drawn open and the
    legend explains it. A line below the panels names the evaluators, numbers of samples and devices of the
    points. The same input gives the same bytes.

    Args:
        panels: Panels in reading order.
        path_pdf: Vector output.
        path_png: Output at 300 dots per inch.
        caption: Further plain text for the line below the panels.

    Raises:
        ValueError: No panel or no point, a quantity that has no name here, or a point without a finite value, or
            with a metric whose evaluator is not given.
        OSError: A file cannot be written; an earlier one stays whole.
    """
    if not panels:
        raise ValueError("a figure needs at least one panel")
    for panel in panels:
        _check(panel)
    labels = list(dict.fromkeys(label for panel in panels for label in panel.series))
    colours = sns.color_palette("colorblind", len(labels))
    styles = {label: (colours[i], MARKERS[i % len(MARKERS)]) for i, label in enumerate(labels)}
    notes = _notes(panels)
    footer = textwrap.fill(" ".join([*caption.split(), _origins(panels)]), 78)
    with house_style():
        figure, axes = _lay_out(len(panels), styles, notes, footer)
        for panel, ax in zip(panels, axes, strict=True):
            _draw(panel, ax, styles, notes, is_half=len(panels) > 1)
        save_figure(figure, path_pdf, path_png)


def _lay_out(num_panels: int, styles: Styles, notes: dict[str, str], footer: str) -> tuple[Figure, list[Axes]]:
    """A grid of axes between the legend of the series above and the notes and the footer below."""
    num_columns = min(2, num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    labels = [textwrap.fill(label, _LABEL_CHARACTERS) for label in styles]
    legend_columns = max(1, min(len(styles), 60 // (max(map(len, labels)) + 6)))
    legend_lines = math.ceil(len(styles) / legend_columns) + sum(label.count("\n") for label in labels)
    texts = [textwrap.fill(f"{letter}: {note}" if letter else note, 70) for note, letter in notes.items()]
    above = legend_lines * _ENTRY_INCHES + 0.1
    footer_top = (footer.count("\n") + 1) * 0.85 * _LINE_INCHES + 0.06
    below = footer_top + sum(text.count("\n") + 1 for text in texts) * _ENTRY_INCHES + 0.06
    height = above + num_rows * _ROW_INCHES + below

    figure = Figure(figsize=(COLUMN_INCHES, height))
    figure.set_layout_engine("constrained", rect=(0, below / height, 1, 1 - (above + below) / height))
    axes = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for ax in axes[num_panels:]:
        ax.set_axis_off()
    shared: dict[str, Any] = {"frameon": False, "handlelength": 1.6, "borderpad": 0, "borderaxespad": 0.4}
    lines = [
        Line2D([], [], label=label, color=colour, marker=marker, markersize=4, linewidth=1.1)
        for label, (colour, marker) in zip(labels, styles.values(), strict=True)
    ]
    figure.legend(handles=lines, loc="upper center", ncols=legend_columns, **shared)
    if texts:
        open_marker: dict[str, Any] = {"color": "0.35", "markerfacecolor": "white", "linestyle": "none"}
        circles = [Line2D([], [], label=text, marker="o", markersize=4, **open_marker) for text in texts]
        position = (0.0, footer_top / height)
        figure.legend(handles=circles, loc="lower left", bbox_to_anchor=position, **shared)
    figure.text(0.02, 0.04 / height, footer, fontsize=5.5, color="0.35", va="bottom")
    return figure, list(axes[:num_panels])


def _check(panel: Panel) -> None:
    where = f"panel '{panel.title}'"
    for quantity in (panel.x, panel.y):
        if quantity not in _QUANTITIES:
            raise ValueError(f"{where}: unknown quantity '{quantity}'; expected one of {', '.join(_QUANTITIES)}")
    if not any(panel.series.values()):
        raise ValueError(f"{where} has no points")
    for label, points in panel.series.items():
        for point in points:
            for quantity in (panel.x, panel.y):
                value = point.get(quantity)
                if not isinstance(value, int | float) or not math.isfinite(value):
                    raise ValueError(
                        f"{where}, series '{label}': {quantity} should be a finite number, it is {value!r}"
                    )
                if _QUANTITIES[quantity].scale == "log2" and value <= 0:
                    raise ValueError(f"{where}, series '{label}': {quantity} must be above 0, it is {value}")
            if _QUANTITIES[panel.y].is_metric and not {"feature_extractor", "num_samples"} <= point.keys():
                raise ValueError(
                    f"{where}, series '{label}': a point with {panel.y} needs its feature_extractor and num_samples"
                )


def _notes(panels: Sequence[Panel]) -> dict[str, str]:
    """A letter for each different note, empty if there is only one."""
    points = [point for panel in panels for series in panel.series.values() for point in series]
    notes = list(dict.fromkeys(str(point["note"]) for point in points if point.get("note")))
    letters = string.ascii_lowercase if len(notes) > 1 else [""]
    return dict(zip(notes, letters, strict=False))


def _draw(panel: Panel, ax: Axes, styles: Styles, notes: dict[str, str], *, is_half: bool) -> None:
    for label, points in panel.series.items():
        colour, marker = styles[label]
        ordered = sorted(points, key=lambda point: (point[panel.x], point[panel.y]))
        x, y = [point[panel.x] for point in ordered], [point[panel.y] for point in ordered]
        sns.lineplot(x=x, y=y, ax=ax, color=colour, linewidth=1.1, estimator=None, sort=False, legend=False, zorder=2)
        for point in ordered:
            noted = bool(point.get("note"))
            face = "white" if noted else colour
            style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 4}
            style["markeredgecolor"] = colour if noted else "white"
            style["markeredgewidth"] = 0.9 if noted else 0.4
            ax.plot(point[panel.x], point[panel.y], marker=marker, zorder=3, **style)
            if noted and (letter := notes[str(point["note"])]):
                position = (point[panel.x], point[panel.y])
                ax.annotate(letter, position, (3, 2), textcoords="offset points", fontsize=5.5, color="0.35")
    width = _TITLE_CHARACTERS * (1 if is_half else 2)
    ax.set_title(textwrap.fill(panel.title, width), loc="left", fontweight="bold")
    ax.set_xlabel(_QUANTITIES[panel.x].label)
    ax.set_ylabel(_QUANTITIES[panel.y].label)
    all_points = [point for points in panel.series.values() for point in points]
    values = sorted({point[panel.x] for point in all_points})
    _set_x_axis(ax, values, _QUANTITIES[panel.x].scale, _CHARACTER_SHARE * (1 if is_half else 0.5))
    _set_y_axis(ax, [point[panel.y] for point in all_points])
    sns.despine(ax=ax)


def _set_x_axis(ax: Axes, values: list[float], scale: str, character: float) -> None:
    """Ticks at the values that were run, with numbers where there is room: a character takes so much of the width."""
    if scale == "log2":
        ax.set_xscale("log", base=2)
        ax.set_xlim(values[0] / 1.25, values[-1] * 1.25)
    elif scale == "decay":
        # Equal steps for equal factors of 1 / (1 - decay), the steps that an average reaches back.
        ax.set_xscale("function", functions=(lambda d: -np.log(np.maximum(1 - d, 1e-12)), lambda y: 1 - np.exp(-y)))
        factor = max(1.25, ((1 - values[0]) / (1 - values[-1])) ** 0.15)
        ax.set_xlim(1 - (1 - values[0]) * factor, 1 - (1 - values[-1]) / factor)
    else:
        margin = 0.15 * (values[-1] - values[0]) or 0.3
        ax.set_xlim(values[0] - margin, values[-1] + margin)
    where = ax.transAxes.inverted().transform(ax.transData.transform([(value, 0) for value in values]))[:, 0]
    half = [character * (len(_plain(value)) + 1) / 2 for value in values]
    numbered = [len(values) - 1]
    for i in reversed(range(len(values) - 1)):
        if where[numbered[-1]] - where[i] >= half[i] + half[numbered[-1]]:
            numbered.append(i)
    ax.xaxis.set_major_locator(FixedLocator([values[i] for i in sorted(numbered)]))
    ax.xaxis.set_minor_locator(FixedLocator([value for i, value in enumerate(values) if i not in numbered]))
    ax.xaxis.set_major_formatter(FuncFormatter(_plain))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _set_y_axis(ax: Axes, values: list[float]) -> None:
    """Logarithmic, and named so, where the values span more than a factor of ten."""
    low, high = min(values), max(values)
    if low > 0 and high > 10 * low:
        ax.set_yscale("log")
        decades = math.log10(high / low)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 1.5 else (1, 3) if decades < 2.5 else (1,)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.set_ylabel(f"{ax.get_ylabel()} (log)")
        ax.set_ylim(low / 1.5, high * 1.5)
        ax.yaxis.set_major_formatter(FuncFormatter(_plain))
    else:
        margin = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
        ax.set_ylim(low - margin, high + margin)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
        decimals = max(len(f"{tick:.9f}".rstrip("0").partition(".")[2]) for tick in ax.get_yticks())
        ax.yaxis.set_major_formatter(StrMethodFormatter(f"{{x:,.{decimals}f}}"))


def _plain(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _origins(panels: Sequence[Panel]) -> str:
    """By what the points shown were measured, and that they are not the paper's figures."""
    evaluators, devices = [], []
    for panel in panels:
        for point in (point for points in panel.series.values() for point in points):
            if _QUANTITIES[panel.y].is_metric:
                partial = "" if point.get("full_protocol", False) else ", not the paper's full protocol"
                samples = f"{int(point['num_samples']):,} samples"
                evaluators.append(f"{point['feature_extractor']}, {samples}{partial}")
            if _QUANTITIES[panel.y].is_time and point.get("device"):
                devices.append(str(point["device"]))
    text = "Measured by this repository, not taken from the paper."
    if evaluators:
        text += f" Evaluator: {'; '.join(dict.fromkeys(evaluators))}."
    if devices:
        text += f" Timed on {'; '.join(dict.fromkeys(devices))}."
    return text
