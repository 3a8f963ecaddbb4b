"""Commands for what goes on in this folder."""

from __future__ import annotations

import argparse

from dip import params as reader
from dip.cli.common import Add, find_run, known_study


def add_commands(add: Add) -> None:
    """Add them to the command line."""
    status = add("status", _status, "what became of the runs: state, step, time left, job")
    status.add_argument("--study", help="paper, small or demo, with the runs that have not begun; all if not given")
    status.add_argument("--json", action="store_true", help="as a JSON list")
    add("cancel", _cancel, "end what works on a run, as a SLURM job or here; it can go on later", "run")
    add("unlock", _unlock, "remove the lock that a killed Snakemake left in this folder")


def _status(options: argparse.Namespace) -> None:
    from dip.launch.status import status

    params = reader.load()
    if options.study is not None:
        known_study(params, options.study)
    print(status(params, options.study, as_json=options.json))


def _cancel(options: argparse.Namespace) -> None:
    from dip.launch.status import cancel

    params = reader.load()
    print("\n".join(cancel(params, find_run(params, options.run).name)))


def _unlock(options: argparse.Namespace) -> None:
    from dip.unlock import unlock

    unlock()
