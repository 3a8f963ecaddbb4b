"""Where every cell of a table comes from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dip.files import sha256
from dip.params import load
from dip.paths import RunFolder
from dip.reporting.published import PUBLISHED
from dip.reporting.study_tables import write_table

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def written(workplace: Path, run_folder: Callable[..., Path]) -> RunFolder:
    """The files of both runs of the table; the folder of `dip`."""
    for name in ("dit", "dip"):
        folder = RunFolder.of("demo", name)
        folder.folder.parent.mkdir(parents=True, exist_ok=True)
        run_folder(name).rename(folder.folder)
        folder.sampling.write_text(json.dumps({"weights": {"sha256": f"weights of {name}"}}))
    return RunFolder.of("demo", "dip")


def test_every_row_names_its_source(written: RunFolder) -> None:
    """Wrong: a number in a table could not be followed to the run, the metrics and the weights behind it."""
    traced = write_table(load(), "demo", "table2")
    lines = list(csv.reader(Path("results/demo/table2.csv").read_text().splitlines()))
    header, rows = lines[0], traced["rows"]
    assert [row["line"] for row in rows] == list(range(2, len(lines) + 1))
    assert set(traced["columns"]) == set(header)
    assert traced["columns"]["FID"] == "metrics"
    assert traced["columns"]["latency"] == "latency"
    assert traced["columns"]["method"] == "params.yaml"
    for row in rows:
        cells = dict(zip(header, lines[row["line"] - 1], strict=True))
        assert (cells["method"], cells["source"]) == (row["method"], row["source"])
    measured = rows[-1]
    assert measured["run"] == "dip"
    assert measured["folder"] == str(written.folder)
    assert measured["files"]["metrics"] == {"path": str(written.metrics), "sha256": sha256(written.metrics)}
    assert measured["checkpoint"] == {"path": str(written.model), "sha256": "weights of dip"}


def test_published_rows_are_found_in_their_file(written: RunFolder) -> None:
    """Wrong: a figure of the paper would be looked for in the wrong line."""
    source = (REPOSITORY / PUBLISHED).read_text().splitlines()
    published = [row for row in write_table(load(), "demo", "table2")["rows"] if row["source"] == "published"]
    assert published
    for row in published:
        cells = next(csv.reader([source[row["line_of_file"] - 1]]))
        assert cells[:2] == [str(row["table"]), str(row["row"])]
        assert cells[3] == row["method"]


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[]", b"{}"])
def test_a_run_without_the_record_of_its_weights_is_named(written: RunFolder, content: bytes | None) -> None:
    """Wrong: a row in the table whose weights nobody knows, or advice to remove a run's folder over one small file."""
    written.sampling.unlink()
    if content is not None:
        written.sampling.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^run 'dip': {written.sampling} is missing or damaged .* `dip sample dip` "):
        write_table(load(), "demo", "table2")
