"""Figure 10 and others of its form: quality and cost of runs against one of their settings."""

from __future__ import annotations

import math
import string
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dip.files import atomic_write


@dataclass(frozen=True)
class _Quantity:
    label: str
    log2: bool = False  # a setting that is doubled from point to point
    is_metric: bool = False  # measured by an evaluator on samples


_QUANTITIES = {
    "head.depth": _Quantity("Head depth (stages)"),
    "head.width": _Quantity("Head width (channels)", log2=True),
    "patch_size": _Quantity("Patch size (pixels)", log2=True),
    "fid": _Quantity("FID ↓", is_metric=True),
    "sfid": _Quantity("sFID ↓", is_metric=True),
    "inception_score": _Quantity("IS ↑", is_metric=True),
    "precision": _Quantity("Precision ↑", is_metric=True),
    "recall": _Quantity("Recall ↑", is_metric=True),
    "gflops": _Quantity("GFLOP/pass ↓"),
    "latency_seconds": _Quantity("Seconds/image ↓"),
    "training_hours": _Quantity("Training hours ↓"),
}
_WIDTH_INCHES = 3.45  # one column of a two-column page
_ROW_INCHES = 1.4
_FOOTER_CHARACTERS = 92
_STYLE = {
    **mpl.rcParamsDefault,
    **sns.axes_style("ticks", {"axes.grid": True}),
    **{"font.size": 6.5, "axes.titlesize": 6.5, "axes.labelsize": 6.5, "legend.fontsize": 6.5},
    **{"xtick.labelsize": 6, "ytick.labelsize": 6, "xtick.major.size": 2, "ytick.major.size": 2},
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "grid.linewidth": 0.4},
    **{"axes.labelpad": 2, "axes.titlepad": 4, "xtick.major.pad": 2, "ytick.major.pad": 2},
    **{"grid.color": "0.9", "pdf.fonttype": 42, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"]},
}
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_DATELESS = {"pdf": {"CreationDate": None}, "png": {"Software": None}}

# A run's values by quantity, for example the content of its metrics.json with "patch_size" and "gflops" added.
# A metric needs "feature_extractor" and "num_samples" beside it; "note" says what is special about the run.
Point = Mapping[str, Any]


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


def figure10(
    panels: Sequence[Panel], path_pdf: str | Path, path_png: str | Path, *, caption: str = ""
) -> None:
    """Draw panels in a grid of two columns, at the width of one column of a page.

    Colours and markers of a label are the same in all panels. A point with a "note" is drawn open and the
    legend explains it. A line below the panels names the evaluators and numbers of samples of the points. The
    same input gives the same bytes.

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
    palette = dict(zip(labels, _colours(len(labels)), strict=True))
    markers = {label: _MARKERS[i % len(_MARKERS)] for i, label in enumerate(labels)}
    notes = _notes(panels)
    footer = textwrap.fill(" ".join([*caption.split(), *_evaluators(panels).split()]), _FOOTER_CHARACTERS)
    below = [textwrap.fill(f"{letter}: {note}" if letter else note, 70) for note, letter in notes.items()]
    with mpl.rc_context(_STYLE):
        figure, axes = _grid(len(panels), below="\n".join([*below, footer]).count("\n") + 1)
        for panel, ax in zip(panels, axes, strict=False):
            _draw(panel, ax, palette, markers, notes)
        _add_legends(figure, labels, palette, markers, below)
        figure.text(0.02, _BORDER_INCHES / figure.get_figheight(), footer, fontsize=5.5, color="0.35", va="bottom")
        for path, kind in ((path_pdf, "pdf"), (path_png, "png")):
            with atomic_write(path, "wb") as file:
                figure.savefig(file, format=kind, dpi=300, metadata=_DATELESS[kind])


def _grid(num_panels: int, *, below: int) -> tuple[Figure, list[Axes]]:
    """Axes in two columns, with room for the legend above and so many lines of text below."""
    num_columns = min(2, num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    bottom = below * _LINE_INCHES + 3 * _BORDER_INCHES
    height = num_rows * _ROW_INCHES + _LEGEND_INCHES + bottom
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    rect = (0, bottom / height, 1, 1 - (bottom + _LEGEND_INCHES) / height)
    figure.get_layout_engine().set(rect=rect, w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr, call-arg]
    axes = list(figure.subplots(num_rows, num_columns, squeeze=False).flatten())
    for ax in axes[num_panels:]:
        ax.set_axis_off()
    return figure, axes


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
                if _QUANTITIES[quantity].log2 and value <= 0:
                    raise ValueError(f"{where}, series '{label}': {quantity} must be above 0, it is {value}")
            if _QUANTITIES[panel.y].is_metric and not {"feature_extractor", "num_samples"} <= point.keys():
                raise ValueError(
                    f"{where}, series '{label}': a point with {panel.y} needs its feature_extractor and num_samples"
                )


def _colours(count: int) -> list[Any]:
    """Colours that stay apart for colour-blind readers (seaborn's palette for them has ten)."""
    return sns.color_palette("colorblind", count)


def _notes(panels: Sequence[Panel]) -> dict[str, str]:
    """A letter for each different note, empty if there is only one."""
    points = [point for panel in panels for series in panel.series.values() for point in series]
    notes = list(dict.fromkeys(str(point["note"]) for point in points if point.get("note")))
    letters = string.ascii_lowercase if len(notes) > 1 else [""]
    return dict(zip(notes, letters, strict=False))


def _draw(
    panel: Panel, ax: Axes, palette: dict[str, Any], markers: dict[str, str], notes: dict[str, str]
) -> None:
    for label, points in panel.series.items():
        ordered = sorted(points, key=lambda point: (point[panel.x], point[panel.y]))
        x, y = [point[panel.x] for point in ordered], [point[panel.y] for point in ordered]
        sns.lineplot(
            x=x, y=y, ax=ax, color=palette[label], linewidth=1.1, estimator=None, sort=False, legend=False, zorder=2
        )
        for point in ordered:
            noted = bool(point.get("note"))
            face = "white" if noted else palette[label]
            style: dict[str, Any] = {"color": palette[label], "markerfacecolor": face, "markersize": 4}
            style["markeredgecolor"] = palette[label] if noted else "white"
            style["markeredgewidth"] = 0.9 if noted else 0.4
            ax.plot(point[panel.x], point[panel.y], marker=markers[label], zorder=3, **style)
            if noted and (letter := notes[str(point["note"])]):
                position = (point[panel.x], point[panel.y])
                ax.annotate(letter, position, (3, 2), textcoords="offset points", fontsize=5.5, color="0.35")
    ax.set_title(panel.title, loc="left", fontweight="bold")
    ax.set_xlabel(_QUANTITIES[panel.x].label)
    ax.set_ylabel(_QUANTITIES[panel.y].label)
    all_points = [point for points in panel.series.values() for point in points]
    _set_x_axis(ax, sorted({point[panel.x] for point in all_points}), log2=_QUANTITIES[panel.x].log2)
    _set_y_axis(ax, [point[panel.y] for point in all_points])
    sns.despine(ax=ax)


def _set_x_axis(ax: Axes, values: list[float], *, log2: bool) -> None:
    """Ticks at the values that were run."""
    if log2:
        ax.set_xscale("log", base=2)
        ax.set_xlim(values[0] / 1.25, values[-1] * 1.25)
    else:
        ax.set_xlim(values[0] - 0.3, values[-1] + 0.3)
    ax.xaxis.set_major_locator(FixedLocator(values))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(_plain))


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
    else:
        margin = 0.1 * (high - low) or 0.1 * abs(high) or 1.0
        ax.set_ylim(low - margin, high + margin)
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))
    ax.yaxis.set_major_formatter(FuncFormatter(_plain))


def _plain(value: float, _position: int | None = None) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _add_legends(
    figure: Figure, labels: list[str], palette: dict[str, Any], markers: dict[str, str], below: list[str]
) -> None:
    """The series above the panels; under them, above the footer, what open markers mean."""
    shared: dict[str, Any] = {"frameon": False, "handlelength": 1.6, "borderpad": 0, "borderaxespad": 0.3}
    lines = [
        Line2D([], [], label=label, color=palette[label], marker=markers[label], markersize=4, linewidth=1.1)
        for label in labels
    ]
    figure.legend(handles=lines, loc="upper center", ncols=len(labels), **shared)


def _evaluators(panels: Sequence[Panel]) -> str:
    """What measured the metrics shown, and that they are not the paper's figures."""
    found = []
    for panel in panels:
        if not _QUANTITIES[panel.y].is_metric:
            continue
        for point in (point for points in panel.series.values() for point in points):
            partial = "" if point.get("full_protocol", False) else ", not the paper's full protocol"
            found.append(f"{point['feature_extractor']}, {int(point['num_samples']):,} samples{partial}")
    if not found:
        return "Measured by this repository; not the paper's figures."
    names = "; ".join(dict.fromkeys(found))
    return f"Measured by this repository, not taken from the paper. Evaluator: {names}."
