"""The paper's figures are those of the paper."""

from __future__ import annotations

import re

import pandas as pd
import pytest

from dip.reporting.published import published_rows

_NUMBERS = ("fid", "sfid", "is", "precision", "recall", "latency_seconds", "epochs")


def frame(table: int) -> pd.DataFrame:
    return pd.DataFrame(published_rows(f"table{table}"))


@pytest.mark.parametrize(("table", "sections"), [(1, [5, 11]), (2, [4, 4]), (3, [4, 5])])
def test_all_rows_are_there(table: int, sections: list[int]) -> None:
    """A method of the paper is missing, doubled or in the wrong section."""
    rows = frame(table)
    assert rows["row"].tolist() == [str(i) for i in range(1, sum(sections) + 1)]
    assert rows.groupby("section", sort=False).size().tolist() == sections


@pytest.mark.parametrize(
    ("table", "row", "values"),
    [
        (1, 1, "LDM 3.60 - 247.7 0.87 0.48 - - 170 250x2 400M+86M"),
        (1, 6, "CDM 4.88 - 158.7 - - - - 2160 4100 -"),
        (1, 7, "ADM 3.94 6.14 215.8 0.83 0.53 - 15.80 400 500 554M"),
        (1, 8, "JetFormer-L 6.64 - - 0.69 0.56 - - 500 - 2.8B"),
        (1, 13, "PixelFlow-XL/4 1.98 5.83 282.1 0.81 0.60 - 7.50 320 120x2 677M"),
        (1, 14, "DiP-XL/16 2.16 4.79 276.8 0.82 0.61 - 0.92 160 100x2 631M"),
        (1, 15, "DiP-XL/16 1.98 4.57 282.9 0.80 0.62 - 0.70 320 75x2 631M"),
        (1, 16, "DiP-XL/16 1.90 4.58 285.4 0.81 0.62 - 0.92 320 100x2 631M"),
        (3, 6, "SiD 3.02 - 248.7 - - - - - - 2.00B"),
        (3, 9, "DiP-XL/32 2.31 4.48 291.68 0.84 0.58 - - - - 631M"),
    ],
)
def test_figures_as_printed(table: int, row: int, values: str) -> None:
    """A figure differs from the paper's, also in its digits: 0.70 is not 0.7."""
    found = frame(table).iloc[row - 1].drop(["table", "row", "section"])
    assert " ".join(value or "-" for value in found) == values


def test_table_2_as_printed() -> None:
    """Cost or quality of one of the eight designs differs from the paper's."""
    rows = frame(2).set_index("method")
    assert rows["fid"].tolist() == ["5.28", "4.91", "4.28", "2.83", "6.92", "2.98", "2.20", "2.16"]
    assert rows["sfid"].tolist() == ["6.56", "6.44", "6.26", "5.16", "7.27", "5.16", "4.49", "4.79"]
    hours = [int(re.sub("x8 GPU hours", "", cost)) for cost in rows["training_cost"]]
    assert hours == [84, 103, 103, 149, 93, 96, 123, 92]
    assert rows.loc["Convolutional U-Net", "latency_seconds"] == "0.92"
    assert rows.loc["DiT-only (26 Layers, 1536 Hidden Dim)", "params"] == "1.1B"


@pytest.mark.parametrize("table", [1, 2, 3])
def test_figures_are_numbers(table: int) -> None:
    """A cell holds a unit, a dash or a typing mistake."""
    rows = frame(table)
    for column in _NUMBERS:
        assert all(re.fullmatch(r"\d+(\.\d+)?|", value) for value in rows[column]), column
    assert all(re.fullmatch(r"\d+(x2)?|", value) for value in rows["nfe"])
    assert all(re.fullmatch(r"[\d.]+[MB](\+\d+M)?|", value) for value in rows["params"])
    assert rows["precision"].replace("", "0.5").astype(float).between(0, 1).all()
