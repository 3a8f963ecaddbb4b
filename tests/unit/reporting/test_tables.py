"""Tables hold what they should, in order, and published figures stay apart from measured ones."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from dip.reporting.measured import MeasuredRow
from dip.reporting.tables import LAYOUTS, build_table, write_table

MakeRow = Callable[..., MeasuredRow]


@pytest.mark.parametrize(
    ("layout", "columns"),
    [
        ("table1", "method FID sFID IS precision recall latency epochs NFE params"),
        ("table2", "method FID sFID IS precision recall training_cost latency params"),
        ("table3", "method FID sFID precision recall IS params"),
        ("cost", "method training_cost latency spread images/s batch memory NFE params"),
    ],
)
def test_columns_in_the_papers_order(make_row: MakeRow, layout: str, columns: str) -> None:
    """A column is missing or in another place than in the paper, or the origin of a row is not given."""
    table = build_table(layout, [make_row()])
    expected = [name.replace("_", " ") for name in columns.split()]
    provenance = ["run", "source", "device", "feature_extractor", "num_samples", "protocol", "section"]
    provenance += ["reference", "init_from"]
    assert list(table.columns) == expected + provenance


@pytest.mark.parametrize(("layout", "count"), [("table1", 16), ("table2", 8), ("table3", 9)])
def test_published_rows_stay_apart(make_row: MakeRow, layout: str, count: int) -> None:
    """A figure of the paper stands between measured ones, or one of either kind does not say where it is from."""
    table = build_table(layout, [make_row("first"), make_row("second")])
    assert table["source"].tolist() == ["published"] * count + ["measured"] * 2
    published, measured = table[:count], table[count:]
    assert (published["run"] == "").all() and (published["device"] == "").all()
    assert published["protocol"].tolist() == [f"as printed: Table {layout[-1]}, row {i}" for i in range(1, count + 1)]
    assert measured["run"].tolist() == ["first", "second"]
    assert (measured["feature_extractor"] == "photo network").all()
    assert (measured["num_samples"] == "500").all()
    assert measured["protocol"].str.startswith("not the full protocol").all()


def test_a_distance_just_below_zero_has_no_sign(make_row: MakeRow) -> None:
    """A Frechet distance of -0.00, which rounding makes of equal sets, reads as a mistake."""
    first = build_table("table1", [make_row("a", fid=-0.001, sfid=-1e-9)], published=False).iloc[0]
    assert (first["FID"], first["sFID"]) == ("0.00", "0.00")


def test_measured_cells(make_row: MakeRow) -> None:
    """A measurement is shown in another unit or with other digits than agreed."""
    first = build_table("table1", [make_row("a")], published=False).iloc[0]
    assert first[list(LAYOUTS["table1"])].tolist() == [
        *("a", "12.97", "9.61", "7.12", "0.61", "0.34", "0.203 s", "4", "25x2", "630.61M")
    ]
    second = build_table("table2", [make_row("b", device="NVIDIA H200", inception_score=285.44)], published=False)
    assert second.loc[0, "training cost"] == "0.0302 H200 GPU hours"
    assert second.loc[0, "IS"] == "285.4"
    assert second.loc[0, "device"] == "NVIDIA H200"


def test_cost_of_a_row(make_row: MakeRow) -> None:
    """What a row costs is shown in another unit, or passes for a figure of the paper."""
    table = build_table("cost", [make_row("a", device="NVIDIA H200")])
    assert table["source"].tolist() == ["measured"]
    assert table.loc[0, list(LAYOUTS["cost"])].tolist() == [
        *("a", "0.0302 H200 GPU hours", "0.203 s", "0.0120 s", "31.2", "16", "3.00 GiB", "25x2", "630.61M")
    ]
    row = make_row("b")
    older = replace(row, latency={"latency_seconds": 1.0, "device": "CPU"})
    with pytest.raises(ValueError, match=r"run 'b': its latency\.json has no latency_spread_seconds; remove it"):
        build_table("cost", [older])


def test_without_published_rows(make_row: MakeRow) -> None:
    """A table of our own, as that of the placements, is filled with rows of the paper."""
    table = build_table("table2", [make_row()], published=False)
    assert table["source"].tolist() == ["measured"]


def test_rows_of_a_section_stand_together(make_row: MakeRow) -> None:
    """A section's heading appears twice, or the order of params.yaml is lost."""
    rows = [make_row(name, section=section) for name, section in [("a", "X"), ("b", "Y"), ("c", "X")]]
    table = build_table("table2", rows, published=False)
    assert table["run"].tolist() == ["a", "c", "b"]


def test_user_mistakes(make_row: MakeRow) -> None:
    """A wrong name, an empty table or a missing latency gives a broken table instead of a message."""
    row = make_row()
    with pytest.raises(ValueError, match="unknown table layout 'table9'; expected one of table1"):
        build_table("table9", [row])
    with pytest.raises(ValueError, match="at least one row"):
        build_table("table1", [], published=False)
    with pytest.raises(ValueError, match="at least one row"):
        build_table("cost", [])
    with pytest.raises(ValueError, match=r"run 'demo_dip' has no latency\.json"):
        build_table("table2", [replace(row, latency=None)])
    assert build_table("table3", [replace(row, latency=None)], published=False).loc[0, "FID"] == "12.97"


def test_csv_round_trip(make_row: MakeRow, tmp_path: Path) -> None:
    """A label with a comma, a quote or another alphabet breaks the file, or a cell changes its digits."""
    rows = [make_row("a", label='Größe "2 × 3", x'), make_row("b")]
    table = build_table("table2", rows)
    path, *_ = write_table(table, tmp_path / "table2", caption="Heads.")
    read = pd.read_csv(path, dtype=str, keep_default_na=False)
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert pd.read_csv(io.StringIO(path.read_text()))["FID"].dtype == float


def test_equal_input_gives_equal_bytes(make_row: MakeRow, tmp_path: Path) -> None:
    """A table changes though nothing in it did (a date, a path, the order of a set)."""
    table = build_table("table1", [make_row("a"), make_row("b")])
    first = write_table(table, tmp_path / "one" / "table1", caption="Heads.")
    second = write_table(table.copy(), tmp_path / "two" / "table1", caption="Heads.")
    assert [path.name for path in first] == ["table1.csv", "table1.md", "table1.html", "table1.tex"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_failed_write_keeps_the_old_table(make_row: MakeRow, tmp_path: Path) -> None:
    """A table that cannot be rendered damages the one that stands there."""
    table = build_table("table1", [make_row()])
    paths = write_table(table, tmp_path / "table1", caption="Heads.")
    before = [path.read_bytes() for path in paths]
    with pytest.raises(KeyError):
        write_table(table.drop(columns="source"), tmp_path / "table1", caption="Heads.")
    assert [path.read_bytes() for path in paths] == before
