"""The figures that the paper prints, from published.csv; each row cites its table and its row there."""

from __future__ import annotations

import functools
from importlib import resources

import pandas as pd

# Section 4.1: the evaluation suite of ADM on 50,000 samples.
EVALUATOR = "InceptionV3 (ADM suite)"
NUM_SAMPLES = 50_000


@functools.cache
def _all_rows() -> pd.DataFrame:
    with resources.files("dip.reporting").joinpath("published.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


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
    rows = _all_rows()
    found = rows[rows["table"] == str(table)]
    if found.empty:
        raise ValueError(f"published figures are kept of the paper's tables 1, 2 and 3, not of {table}")
    return found.reset_index(drop=True)
