"""The columns of tables: all that is known about each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from dip.reporting.measured import MeasuredRow
from dip.reporting.published import EVALUATOR, NUM_SAMPLES, is_of_the_authors


def _nothing(row: Mapping[str, str]) -> str:
    """The cell of a published row where the paper has no such figure."""
    return ""


@dataclass(frozen=True)
class Column:
    """One column: its text in every row, where that comes from, and how it is read.

    Attributes:
        measured: Its cell in a measured row; empty where there is no figure.
        file: What the cell of a measured row is read from, as provenance names it.
        better: Which values are better: lower or higher ones, or neither.
        published: Its cell in a row of published.csv.
        short: Its name in LaTeX, where that is shorter.
    """

    measured: Callable[[MeasuredRow], str]
    file: Literal["metrics", "latency", "training", "training_log", "params.yaml"]
    better: Literal["", "↓", "↑"] = ""
    published: Callable[[Mapping[str, str]], str] = _nothing
    short: str = ""

    @property
    def is_evaluated(self) -> bool:
        """Whether only rows of one evaluator can be compared in it."""
        return self.file == "metrics" and self.better != ""


def metric(key: str, digits: int = 2) -> Callable[[MeasuredRow], str]:
    """The cell of a number of metrics.json.

    Args:
        key: Its name there.
        digits: How many decimals it is shown with.

    Returns:
        A function of a row, for `Column.measured`: empty for results that are older than the metric.
    """

    def text(row: MeasuredRow) -> str:
        value = row.metrics.get(key)
        return "" if value is None else f"{value:z.{digits}f}"

    return text


def format_significant(value: float, digits: int = 3) -> str:
    """A number of at least 0 with so many significant digits, never in powers of ten: 0.0167, 84.0, 1234."""
    if value == 0:
        return "0"
    magnitude = int(f"{value:.{digits - 1}e}".split("e")[1])
    return f"{value:.{max(digits - 1 - magnitude, 0)}f}"


def format_hours(hours: float, device: str) -> str:
    """Training cost with the device as its unit.

    Args:
        hours: Hours of one device times the number of devices.
        device: What the maker calls it; it starts with "CPU" where it is one.

    Returns:
        For example "84.0 H200 GPU hours" or "0.0167 CPU core-hours".
    """
    if device.upper().startswith("CPU"):
        return f"{format_significant(hours)} CPU core-hours"
    maker = re.sub(r"^NVIDIA\s+", "", device.strip())
    return f"{format_significant(hours)} {maker} GPU hours"


def _inception_score(row: MeasuredRow) -> str:
    score = row.metrics["inception_score"]
    return f"{score:.1f}" if score >= 100 else f"{score:.2f}"


def _latency(row: MeasuredRow) -> str:
    return f"{format_significant(row.latency['latency_seconds'])} s" if row.latency is not None else ""


def _printed_latency(row: Mapping[str, str]) -> str:
    return f"{row['latency_seconds']} s" if row["latency_seconds"] else ""


def _cost(row: MeasuredRow, key: str) -> float:
    """A figure of latency.json."""
    assert row.latency is not None  # build_table
    if key not in row.latency:
        raise ValueError(f"run '{row.run}': its latency.json has no {key}; remove it and measure again")
    return row.latency[key]


COLUMNS = {
    "method": Column(lambda row: " ".join(row.label.split()), "params.yaml", published=itemgetter("method")),
    "FID": Column(metric("fid"), "metrics", "↓", itemgetter("fid")),
    "sFID": Column(metric("sfid"), "metrics", "↓", itemgetter("sfid")),
    "IS": Column(_inception_score, "metrics", "↑", itemgetter("is")),
    "precision": Column(metric("precision"), "metrics", "↑", itemgetter("precision"), short="Prec."),
    "recall": Column(metric("recall"), "metrics", "↑", itemgetter("recall"), short="Rec."),
    "training cost": Column(
        lambda row: format_hours(row.training["gpu_hours"], row.training["device"]),
        "training_log",
        published=itemgetter("training_cost"),
    ),
    "latency": Column(_latency, "latency", "↓", _printed_latency),
    "epochs": Column(lambda row: f"{row.epochs:g}", "params.yaml", published=itemgetter("epochs")),
    "NFE": Column(lambda row: row.nfe, "params.yaml", published=itemgetter("nfe")),
    "params": Column(
        lambda row: f"{row.parameters['num_parameters'] / 1e6:.2f}M", "training", published=itemgetter("params")
    ),
    "spread": Column(lambda row: f"{format_significant(_cost(row, 'latency_spread_seconds'))} s", "latency"),
    "images/s": Column(lambda row: format_significant(_cost(row, "images_per_second")), "latency"),
    "batch": Column(lambda row: f"{_cost(row, 'best_batch_size'):g}", "latency"),
    "memory": Column(lambda row: f"{_cost(row, 'best_batch_peak_memory_bytes') / 2**30:.2f} GiB", "latency"),
    "run": Column(lambda row: row.run, "params.yaml"),
    "source": Column(lambda row: "measured", "params.yaml", published=lambda row: "published"),
    "device": Column(lambda row: row.device, "training"),
    "feature_extractor": Column(
        lambda row: row.evaluator[0], "metrics", published=lambda row: EVALUATOR if is_of_the_authors(row) else ""
    ),
    "num_samples": Column(
        lambda row: str(row.evaluator[1]),
        "metrics",
        published=lambda row: str(NUM_SAMPLES) if is_of_the_authors(row) else "",
    ),
    "protocol": Column(
        lambda row: row.protocol,
        "metrics",
        published=lambda row: f"as printed: Table {row['table']}, row {row['row']}",
    ),
    "section": Column(lambda row: row.section, "params.yaml", published=itemgetter("section")),
    "reference": Column(lambda row: str(row.metrics.get("reference", "")), "metrics"),
    "init_from": Column(lambda row: row.init_from or "", "params.yaml"),
}
"""Columns by their names in the header; which of them a table has, and in which order, is its layout's matter."""
