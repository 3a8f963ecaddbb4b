"""Where every cell of a table comes from: the content of its provenance file."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd

from dip.files import sha256
from dip.paths import RunFolder
from dip.reporting.columns import COLUMNS
from dip.reporting.published import PUBLISHED, line_of, published_rows
from dip.schema import Params, Table


def trace(params: Params, study: str, table: Table, content: pd.DataFrame) -> dict[str, Any]:
    """The source of every row, and of every column of a measured row.

    Args:
        params: All of params.yaml.
        study: Of the table.
        table: Its settings.
        content: Its rows as they stand in the CSV.

    Returns:
        `columns`: the kind of file behind a column. `rows`, in the order of the CSV: its line there; of a measured
        row the run, its folder and its files with their SHA-256, and the checkpoint that was sampled with; of a
        published row its table and row in the paper and the line of published.csv.

    Raises:
        ValueError: A run's file is missing or damaged.
    """
    printed = iter(published_rows(table.layout))
    rows: list[dict[str, Any]] = []
    for line, (method, run, source) in enumerate(content[["method", "run", "source"]].itertuples(index=False), start=2):
        row = {"line": line, "method": method, "source": source}
        rows.append(row | (_measured(params, study, run) if source == "measured" else _published(next(printed))))
    return {"columns": {name: COLUMNS[name].file for name in content.columns}, "rows": rows}


def _measured(params: Params, study: str, name: str) -> dict[str, Any]:
    run = params.runs[name]
    folder = RunFolder.of(study, name)
    trained = RunFolder.of(study, run.training_run)
    files = {
        "metrics": folder.metrics,
        "latency": folder.latency,
        "training": trained.params,
        "training_log": trained.training_log,
        "sampling": folder.sampling,
    }
    try:
        weights = json.loads(folder.sampling.read_text())["weights"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"run '{name}': {folder.sampling} is missing or damaged ({error}); without that file, `dip sample {name}` "
            "makes it again"
        ) from None
    try:
        found = {kind: {"path": str(path), "sha256": sha256(path)} for kind, path in files.items()}
    except OSError as error:
        raise ValueError(f"run '{name}': {error}; run the stage that writes the file again") from None
    checkpoint = {"path": str(folder.weights(run)), "sha256": weights}
    return {"run": name, "folder": str(folder.folder), "files": found, "checkpoint": checkpoint}


def _published(row: dict[str, str]) -> dict[str, Any]:
    return {"file": PUBLISHED, "table": int(row["table"]), "row": int(row["row"]), "line_of_file": line_of(row)}
