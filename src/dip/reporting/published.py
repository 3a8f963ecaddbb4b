"""The figures that the paper prints, from published.csv; each row cites its table and its row there."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib import resources

# Section 4.1: the evaluation suite of ADM on 50,000 samples, which it says of the authors' own models.
EVALUATOR = "InceptionV3 (ADM suite)"
NUM_SAMPLES = 50_000
PUBLISHED = "src/dip/reporting/published.csv"
PAPER_TABLES = ("table1", "table2", "table3")
"""Layouts of params.yaml that are tables of the paper."""


def published_rows(layout: str) -> list[dict[str, str]]:
    """Rows of one of the paper's tables, in its order.

    Args:
        layout: One of `PAPER_TABLES`; there are no rows of others.

    Returns:
        Text by column, as printed (so that 0.70 stays 0.70), empty where the paper prints "-". Columns: table, row (1
        is the first), section, method, fid, sfid, is, precision, recall, training_cost, latency_seconds, epochs, nfe,
        params.
    """
    return [dict(row) for row in _all_rows() if f"table{row['table']}" == layout]


def is_of_the_authors(row: Mapping[str, str]) -> bool:
    """Whether a row is of a model that the authors trained: DiP, and all of Table 2."""
    return row["table"] == "2" or row["method"].startswith("DiP")


def line_of(row: dict[str, str]) -> int:
    """Line of the CSV in which a row stands."""
    return _all_rows().index(row) + 2  # below the header


@functools.cache
def _all_rows() -> tuple[dict[str, str], ...]:
    with resources.files("dip.reporting").joinpath("published.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))
