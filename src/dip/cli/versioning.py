"""Commands by which DVC and Snakemake work on the same results."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from dip import params as reader
from dip.cli.common import Add
from dip.pipeline import Pipeline


def add_commands(add: Add) -> None:
    """Add them to the command line."""
    stages = add("stages", _stages, "write the stages of DVC and their parameters to studies/<study>")
    build = add("build", _build, "have Snakemake make a study, as a stage of DVC")
    record = add("record", _record, "record a study that the current call of DVC does not know, as a stage of DVC")
    adopt = add("adopt", _adopt, "let Snakemake know results that DVC or a copy has brought; it does so itself")
    build.add_argument("--with", dest="also", type=Path, metavar="FILE", help="which has to be there in the end")
    for command in (stages, build, record):
        command.add_argument("study", nargs="?", help="paper, small or demo; params.yaml's `study` if not given")
    for command in (stages, build, record, adopt):
        command.set_defaults(light=True)


def _study(options: argparse.Namespace) -> tuple[Pipeline, str]:
    params = reader.load()
    return Pipeline(params), reader.study_of(params, options.study)


def _stages(options: argparse.Namespace) -> None:
    from dip.versioning.build import refresh

    refresh(*_study(options))


def _build(options: argparse.Namespace) -> None:
    from dip.versioning.build import build

    build(*_study(options), options.also)


def _record(options: argparse.Namespace) -> None:
    from dip.versioning.build import record

    record(_study(options)[1])


def _adopt(options: argparse.Namespace) -> None:
    from dip.adoption import adopt

    if not adopt(Pipeline(reader.load())):
        logging.info("Snakemake knows all results that are as it would make them")
