"""`dip table`: from params.yaml to a table."""

from __future__ import annotations

from typing import Any

from dip.diffusion.evaluations import nfe_label
from dip.paths import RunFolder, study_folder
from dip.reporting.measured import MeasuredRow
from dip.reporting.tables import build_table
from dip.reporting.tables import write_table as write
from dip.reporting.tracing import trace
from dip.schema import Params


def write_table(params: Params, study: str, name: str) -> dict[str, Any]:
    """Write a table of params.yaml as CSV, Markdown and LaTeX.

    Returns:
        Where every cell comes from, as in `dip.reporting.tracing.trace`.

    Raises:
        ValueError: A run's file is missing or unreadable; it is named.
    """
    table = params.tables[name][study]
    rows = []
    for section, runs in table.sections.items():
        for run in (params.runs[name] for name in runs):
            trained = params.runs[run.training_run]
            row = MeasuredRow.load(
                RunFolder.of(study, run.name).folder,
                section=section,
                label=run.label,
                run=run.name,
                epochs=run.epochs,
                nfe=nfe_label(run.sampling),
                training_folder=RunFolder.of(study, trained.name).folder,
                init_from=trained.training.init_from,
            )
            rows.append(row)
    content = build_table(table.layout, rows, published=table.published)
    sources = trace(params, study, table, content)
    write(content, study_folder(study) / name, caption=table.caption)
    return sources
