"""Commands for what goes on in this folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from dip import params as reader
from dip.cli.common import Add


def add_commands(add: Add) -> None:
    """Add them to the command line."""
    status = add("status", _status, "what became of the runs: state, step, time left, job")
    status.add_argument("--study", help="paper, small or demo, with the runs that have not begun; all if not given")
    status.add_argument("--json", action="store_true", help="as a JSON list")
    cancel = add("cancel", _cancel, "end what works on a run, as a SLURM job or here; it can go on later", "run")
    explain = add("explain", _explain, "what an artefact was made with, whether it is up to date, and why not")
    explain.add_argument("path", nargs="+", type=Path, help="a table, weights, metrics, ..., or a folder of them")
    explain.add_argument("--parameters", action="store_true", help="list all parameters that it was made with")
    ablation = add("ablation", _ablation, "add a run that differs in some settings to params.yaml", "run")
    setting = "model.head.depth=2, for example; once for each setting"
    ablation.add_argument("--set", action="append", required=True, metavar="KEY=VALUE", help=setting)
    ablation.add_argument("--name", required=True, help="of the new run")
    ablation.add_argument("--label", help="how tables and figures name it; the run's and what differs if not given")
    for what, part in (("table", "SECTION"), ("figure", "PANEL")):
        help = f"a {what} that shows the run, and shall show the new one below it"
        ablation.add_argument(f"--{what}", action="append", default=[], metavar=f"NAME[:{part}]", help=help)
    unlock = add("unlock", _unlock, "remove the lock that a killed Snakemake left in this folder")
    for command in (status, cancel, explain, ablation, unlock):
        command.set_defaults(light=True)


def _status(options: argparse.Namespace) -> None:
    from dip.launch.status import status

    params = reader.load()
    if options.study is not None:
        reader.known(params, "studies", options.study)
    print(status(params, options.study, as_json=options.json))


def _cancel(options: argparse.Namespace) -> None:
    from dip.launch.status import cancel

    print("\n".join(cancel(reader.load(), options.run)))


def _explain(options: argparse.Namespace) -> None:
    from dip.explain import explain
    from dip.pipeline import Pipeline

    for line in explain(Pipeline(reader.load()), options.path, parameters=options.parameters):
        print(line)


def _ablation(options: argparse.Namespace) -> None:
    from dip.ablation import add_run, places_of
    from dip.paths import RunFolder, StudyFolder
    from dip.pipeline import Pipeline
    from dip.versioning.stages import write_stages

    shown = {"label": options.label, "tables": options.table, "figures": options.figure}
    params = add_run(options.run, options.name, options.set, **shown)
    study = params.runs[options.name].study
    if StudyFolder(study).stages.exists():
        write_stages(Pipeline(params), study)
    if places := places_of(params, options.name):  # more than were asked for where panels have one list
        print("\n  ".join([f"params.yaml: runs.{options.name}, shown in", *places]))
        print("`snakemake --profile ...` or `dvc repro` makes what is new")
    else:
        print(f"params.yaml: runs.{options.name}, shown in no table or figure yet")
        metrics = RunFolder.of(study, options.name).metrics
        print(f"`snakemake --profile ... {metrics}` makes it; a table or figure that names it does, too")


def _unlock(options: argparse.Namespace) -> None:
    from dip.unlock import unlock

    unlock()
