"""The figures that the paper prints, from published.csv; each row cites its table and its row there."""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

# Section 4.1: the evaluation suite of ADM on 50,000 samples, which it says of the authors' own models.
EVALUATOR = "InceptionV3 (ADM suite)"
NUM_SAMPLES = 50_000
PUBLISHED = "src/dip/reporting/published.csv"
# The paper's tables by the names that layouts have in params.yaml.
PAPER_TABLE = {"table1": 1, "table2": 2, "table3": 3}


def printed_rows(table: int) -> list[dict[str, str]]:
    """Rows of one of the paper's tables, in its order: text by column, as in `published_rows`; none of other tables."""
    return [dict(row) for row in _all_rows() if row["table"] == str(table)]


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


def published_rows(table: int) -> pd.DataFrame:
    """Rows of one of the paper's tables, in its order.

    Args:
        table: 1, 2 or 3.

    Returns:
        Text, as printed (so that 0.70 stays 0.70), empty where the paper prints "-". Columns: table, row (1 is
        the first), section, method, fid, sfid, is, precision, recall, training_cost, latency_seconds, epochs,
        nfe, params.

    Raises:
        ValueError: No rows of such a table are kept.
    """
    rows = printed_rows(table)
    if not rows:
        raise ValueError(f"published figures are kept of the paper's tables 1, 2 and 3, not of {table}")

    import pandas as pd

    return pd.DataFrame(rows, dtype=str)
