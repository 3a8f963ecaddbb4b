"""Tables 1, 2 and 3 and others of their form: the paper's columns, then where each figure comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dip.files import atomic_write
from dip.reporting.columns import COLUMNS
from dip.reporting.measured import MeasuredRow
from dip.reporting.published import published_rows
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
    printed = published_rows(layout) if published else []
    if not rows and not printed:
        raise ValueError("a table needs at least one row: give measured rows or ask for the published ones")
    columns = (*LAYOUTS[layout], *PROVENANCE)
    if "latency" in columns:
        for row in rows:
            if row.latency is None:
                raise ValueError(
                    f"run '{row.run}' has no latency.json and its table has a latency column; measure it: "
                    f"`dip latency {row.run}`"
                )
    cells = [[COLUMNS[column].published(row) for column in columns] for row in printed]
    cells += [[COLUMNS[column].measured(row) for column in columns] for row in _by_section(rows)]
    return pd.DataFrame(cells, columns=list(columns), dtype=str)


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


def _by_section(rows: Sequence[MeasuredRow]) -> list[MeasuredRow]:
    """Rows of one section together, sections in the order of their first rows."""
    sections = list(dict.fromkeys(row.section for row in rows))
    return sorted(rows, key=lambda row: sections.index(row.section))
