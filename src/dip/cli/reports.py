"""Commands for tables, figures and descriptions."""

from __future__ import annotations

import argparse

from dip import params as reader
from dip.cli.common import Add, begin, end
from dip.schema import Params


def add_commands(add: Add) -> None:
    """Add them to the command line."""
    for name, stage, help in (
        ("table", _table, "write a table as CSV, Markdown, HTML and LaTeX"),
        ("experiment", _experiment, "compute what the figure of an experiment shows"),
        ("figure", _figure, "draw a figure"),
    ):
        command = add(name, stage, help, "name")
        command.set_defaults(light=name == "table")
        command.add_argument("--study", help="paper, small or demo; params.yaml's `study` if not given")
    describe = add("describe", _describe, "parameters and cost of every run's model, beside the paper's figures")
    describe.add_argument("run", nargs="*", help="runs to describe; all of the study if none is given")
    describe.add_argument("--study", help="paper, small or demo; params.yaml's `study` if no run is given")
    describe.add_argument("--json", action="store_true", help="a list of objects with all digits instead of a table")


def _study(options: argparse.Namespace, section: str) -> tuple[Params, str]:
    params = reader.load()
    study = reader.study_of(params, options.study)
    name = reader.known(params, section, options.name)
    entry = getattr(params, section)[name]
    if study not in entry:
        others = ", ".join(entry)
        raise reader.ParamsError(
            f"params.yaml: {section}.{name}.{study}: there is no such entry; choose with --study: {others}"
        )
    return params, study


def _table(options: argparse.Namespace) -> None:
    from dip.reporting.study_tables import write_table

    params, study = _study(options, "tables")
    job = begin(params, "table", options.name, study)
    end(job, details=write_table(params, study, options.name))


def _experiment(options: argparse.Namespace) -> None:
    from dip.reporting.study_figures import run_experiment

    params, study = _study(options, "figures")
    job = begin(params, "experiment", options.name, study)
    run_experiment(params, study, options.name)
    end(job)


def _figure(options: argparse.Namespace) -> None:
    from dip.reporting.study_figures import draw_figure

    params, study = _study(options, "figures")
    job = begin(params, "figure", options.name, study)
    draw_figure(params, study, options.name)
    end(job)


def _describe(options: argparse.Namespace) -> None:
    from dip.reporting.describe import describe, to_json, to_text

    params = reader.load()
    study = reader.study_of(params, options.study)
    runs = [params.runs[reader.known(params, "runs", name)] for name in options.run] or [
        run for run in params.runs.values() if run.study == study
    ]
    if not runs:
        raise reader.ParamsError(f"params.yaml: runs: none belongs to study '{study}'")
    for run in runs:
        if options.study is not None and run.study != study:
            raise reader.ParamsError(f"params.yaml: runs.{run.name}: belongs to study '{run.study}', not '{study}'")
    descriptions = list(describe(params, runs))
    print(to_json(descriptions) if options.json else to_text(descriptions))
