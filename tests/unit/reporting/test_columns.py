"""Every column has one description; numbers have their digits and units; an own metric may be newer than results."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path

import pytest

from dip.reporting.columns import COLUMNS, Column, format_hours, format_significant, metric
from dip.reporting.measured import MeasuredRow
from dip.reporting.tables import LAYOUTS, PROVENANCE, build_table, write_table
from dip.schema import Table


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric of one's own, as docs/extending.md has it: a column, and its place in a layout."""
    monkeypatch.setitem(COLUMNS, "KID", Column(metric("kid", digits=3), "metrics", "↓"))
    monkeypatch.setitem(LAYOUTS, "own", ("method", "FID", "KID", "params"))


def test_layouts_have_known_columns() -> None:
    """Wrong: a table would end in a KeyError after days of training, or a column would be in no table."""
    used = {column for columns in LAYOUTS.values() for column in columns}
    assert used | set(PROVENANCE) == set(COLUMNS)


def test_every_layout_of_params_yaml_is_there() -> None:
    """Wrong: a table of a layout that has no columns would fail after all its runs are done."""
    assert set(typing.get_args(Table.model_fields["layout"].annotation)) == set(LAYOUTS)


def test_what_rows_of_one_evaluator_are_compared_in() -> None:
    """Wrong: a time would be ranked as a metric, or the best value of a metric not be bold."""
    evaluated = [name for name, column in COLUMNS.items() if column.is_evaluated]
    assert evaluated == ["FID", "sFID", "IS", "precision", "recall"]


def test_own_metric_of_older_results_is_empty(own: None, make_row: Callable[..., MeasuredRow], tmp_path: Path) -> None:
    """Wrong: one result without the new number would keep the table from being made, or pass for a 0."""
    rows = [make_row("a"), make_row("b", kid=0.0214), make_row("c", kid=0.0507)]
    table = build_table("own", rows)
    assert table["KID"].tolist() == ["", "0.021", "0.051"]
    markdown, latex = (path.read_text() for path in write_table(table, tmp_path / "own", caption="Mine.")[1::2])
    assert "KID ↓" in markdown and "**0.021**" in markdown and r"\textbf{0.021}" in latex
    cells = next(line for line in markdown.splitlines() if line.startswith("| a ")).split("|")
    assert [cell.strip() for cell in cells[2:4]] == ["12.97", "-"]


def test_own_metric_that_no_result_has(own: None, make_row: Callable[..., MeasuredRow], tmp_path: Path) -> None:
    """Wrong: the column could not be added before the first evaluation."""
    table = build_table("own", [make_row("a", fid=9.0), make_row("b")])
    assert table["KID"].tolist() == ["", ""]
    markdown = write_table(table, tmp_path / "own", caption="Mine.")[1].read_text()
    assert "**9.00**" in markdown and markdown.count("**") == 6, "the block, the section and the best FID"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.016666, "0.0167"), (0.12, "0.120"), (0.9999, "1.00"), (9.876, "9.88"), (84, "84.0"),
     (99.96, "100"), (123.4, "123"), (1234.5, "1234")],
)  # fmt: skip
def test_significant_digits(value: float, text: str) -> None:
    """A short training shows as 0.00 hours, or a long one in powers of ten."""
    assert format_significant(value) == text


@pytest.mark.parametrize(
    ("hours", "device", "text"),
    [
        (0.0167, "CPU, AMD EPYC 9B14", "0.0167 CPU core-hours"),
        (0.5, "cpu", "0.500 CPU core-hours"),
        (672.0, "NVIDIA H200", "672 H200 GPU hours"),
        (1.5, "NVIDIA GeForce RTX 4090", "1.50 GeForce RTX 4090 GPU hours"),
    ],
)
def test_hours_name_their_device(hours: float, device: str, text: str) -> None:
    """CPU time passes for GPU time."""
    assert format_hours(hours, device) == text
