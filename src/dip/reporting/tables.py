"""Tables 1, 2 and 3 and others of their form: the paper's columns, then where each figure comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from dip.files import atomic_write
from dip.reporting.measured import MeasuredRow
from dip.reporting.published import EVALUATOR, NUM_SAMPLES, PAPER_TABLE, is_of_the_authors, published_rows
from dip.reporting.render import to_html, to_latex, to_markdown

# The paper's columns in the paper's order, by the names that layouts have in params.yaml; `cost` is this project's own.
LAYOUTS: dict[str, tuple[str, ...]] = {
    "table1": ("method", "FID", "sFID", "IS", "precision", "recall", "latency", "epochs", "NFE", "params"),
    "table2": ("method", "FID", "sFID", "IS", "precision", "recall", "training cost", "latency", "params"),
    "table3": ("method", "FID", "sFID", "precision", "recall", "IS", "params"),
    "cost": ("method", "training cost", "latency", "spread", "images/s", "batch", "memory", "NFE", "params"),
}
PROVENANCE = (
    *("run", "source", "device", "feature_extractor", "num_samples", "protocol", "section"),
    *("reference", "init_from"),
)


def build_table(layout: str, rows: Sequence[MeasuredRow], *, published: bool = True) -> pd.DataFrame:
    """Put measured rows under the paper's own.

    Args:
        layout: "table1", "table2" or "table3": whose columns the table has; or "cost", which the paper does not have.
        rows: Measured rows in their order; those of one section stand together.
        published: Whether the paper's rows of that table come first.

    Returns:
        Text as printed, one row per method, empty where there is no figure: the layout's columns, then
        `PROVENANCE`. `source` is "published" in the first rows and "measured" in the rest; `protocol` cites the
        paper's table and row, or says how a measured row's metrics differ from the full protocol; `init_from` names
        a checkpoint that the training started from.

    Raises:
        ValueError: Unknown layout, no row at all, or a row without a latency where the layout has one.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown table layout '{layout}'; expected one of {', '.join(LAYOUTS)}")
    if not rows and not _published(layout, published):
        raise ValueError("a table needs at least one row: give measured rows or ask for the published ones")
    columns = LAYOUTS[layout]
    if "latency" in columns:
        for row in rows:
            if row.latency is None:
                raise ValueError(
                    f"run '{row.run}' has no latency.json and its table has a latency column; measure it first"
                )
    cells = [_published_cells(row, columns) for row in _published(layout, published)]
    cells += [_measured_cells(row, columns) for row in _by_section(rows)]
    return pd.DataFrame(cells, columns=[*columns, *PROVENANCE], dtype=str)


def write_table(table: pd.DataFrame, stem: str | Path, *, caption: str) -> tuple[Path, ...]:
    """Write a table as `<stem>.csv`, `.md`, `.html` and `.tex` (needs the LaTeX package booktabs).

    All hold the same rows; equal tables give equal bytes, and each file is replaced in one step.

    Args:
        table: From `build_table`.
        stem: Path without the ending.
        caption: What is compared, on which data, with which evaluator. Plain text.

    Returns:
        Their paths, in this order.

    Raises:
        OSError: A file cannot be written; earlier ones stay whole.
    """
    stem = Path(stem)
    markdown = to_markdown(table, caption, list(PROVENANCE))
    texts = {
        ".csv": table.to_csv(index=False, lineterminator="\n"),
        ".md": markdown,
        ".html": to_html(markdown, title=stem.name),
        ".tex": to_latex(table, caption, list(PROVENANCE), label=stem.name),
    }
    paths = []
    for ending, text in texts.items():
        paths.append(stem.with_name(stem.name + ending))
        with atomic_write(paths[-1]) as file:
            file.write(text)
    return tuple(paths)


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


def _latency_text(row: MeasuredRow) -> str:
    return f"{format_significant(row.latency['latency_seconds'])} s" if row.latency is not None else ""


def _inception_score_text(row: MeasuredRow) -> str:
    score = row.metrics["inception_score"]
    return f"{score:.1f}" if score >= 100 else f"{score:.2f}"


def _cost(row: MeasuredRow, key: str) -> float:
    """A figure of latency.json."""
    assert row.latency is not None  # build_table
    if key not in row.latency:
        raise ValueError(f"run '{row.run}': its latency.json has no {key}; remove it and measure again")
    return row.latency[key]


_MEASURED: dict[str, Callable[[MeasuredRow], str]] = {
    "method": lambda row: " ".join(row.label.split()),
    "FID": lambda row: f"{row.metrics['fid']:z.2f}",
    "sFID": lambda row: f"{row.metrics['sfid']:z.2f}",
    "IS": _inception_score_text,
    "precision": lambda row: f"{row.metrics['precision']:.2f}",
    "recall": lambda row: f"{row.metrics['recall']:.2f}",
    "training cost": lambda row: format_hours(row.training["gpu_hours"], row.training["device"]),
    "latency": _latency_text,
    "epochs": lambda row: f"{row.epochs:g}",
    "NFE": lambda row: row.nfe,
    "params": lambda row: f"{row.parameters['num_parameters'] / 1e6:.2f}M",
    "spread": lambda row: f"{format_significant(_cost(row, 'latency_spread_seconds'))} s",
    "images/s": lambda row: format_significant(_cost(row, "images_per_second")),
    "batch": lambda row: f"{_cost(row, 'best_batch_size'):g}",
    "memory": lambda row: f"{_cost(row, 'best_batch_peak_memory_bytes') / 2**30:.2f} GiB",
    "run": lambda row: row.run,
    "source": lambda row: "measured",
    "device": lambda row: row.device,
    "feature_extractor": lambda row: row.evaluator[0],
    "num_samples": lambda row: str(row.evaluator[1]),
    "protocol": lambda row: row.protocol,
    "section": lambda row: row.section,
    "reference": lambda row: str(row.metrics.get("reference", "")),
    "init_from": lambda row: row.init_from or "",
}
_PUBLISHED: dict[str, Callable[[Mapping[str, str]], str]] = {
    "method": lambda row: row["method"],
    "FID": lambda row: row["fid"],
    "sFID": lambda row: row["sfid"],
    "IS": lambda row: row["is"],
    "precision": lambda row: row["precision"],
    "recall": lambda row: row["recall"],
    "training cost": lambda row: row["training_cost"],
    "latency": lambda row: f"{row['latency_seconds']} s" if row["latency_seconds"] else "",
    "epochs": lambda row: row["epochs"],
    "NFE": lambda row: row["nfe"],
    "params": lambda row: row["params"],
    "run": lambda row: "",
    "source": lambda row: "published",
    "device": lambda row: "",
    "feature_extractor": lambda row: EVALUATOR if is_of_the_authors(row) else "",
    "num_samples": lambda row: str(NUM_SAMPLES) if is_of_the_authors(row) else "",
    "protocol": lambda row: f"as printed: Table {row['table']}, row {row['row']}",
    "section": lambda row: row["section"],
    "reference": lambda row: "",
    "init_from": lambda row: "",
}


def _measured_cells(row: MeasuredRow, columns: Iterable[str]) -> list[str]:
    return [_MEASURED[column](row) for column in (*columns, *PROVENANCE)]


def _published_cells(row: Mapping[str, str], columns: Iterable[str]) -> list[str]:
    return [_PUBLISHED[column](row) for column in (*columns, *PROVENANCE)]


def _published(layout: str, wanted: bool) -> list[dict[str, str]]:
    if not wanted or layout not in PAPER_TABLE:
        return []
    frame = published_rows(PAPER_TABLE[layout])
    return [dict(zip(frame.columns, values, strict=True)) for values in frame.to_numpy().tolist()]


def _by_section(rows: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Rows of one section together, sections in the order of their first rows."""
    sections = list(dict.fromkeys(row.section for row in rows))
    return sorted(rows, key=lambda row: sections.index(row.section))
