"""`dip <stage>`: every rule of the workflow calls it, and a person can.

A stage takes its parameters from params.yaml by the name of the run. The workflow also passes what it planned
with (`--spec`): if params.yaml has been edited since, the planned parameters hold.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import TypeVar

from dip import params as reader
from dip.paths import RunFolder, Store, feature_network, reference
from dip.schema import (
    Evaluation,
    EvaluationSpec,
    MilestoneSpec,
    Params,
    PhotoExtractor,
    Run,
    SamplingSpec,
    TrainingSpec,
)

_Spec = TypeVar("_Spec", bound=TrainingSpec)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage; a mistake of the user ends in one line and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    _set_threads()
    try:
        options.stage(options)
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and type(error).__module__ == "builtins":
            raise  # ours to mend: show the traceback
        sys.exit(f"dip {options.command}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"dip {options.command}: interrupted; run the same command again to go on")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dip", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, stage: object, help: str, *positional: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help)
        for argument in positional:
            command.add_argument(argument)
        command.set_defaults(stage=stage)
        return command

    add("prepare", _prepare, "write the images and labels of a dataset to data/<dataset>", "dataset")
    add("features", _features, "train the feature network of an evaluator", "evaluation")
    add("reference", _reference, "write the images and statistics that samples are compared with", "evaluation")
    train = add("train", _train, "train a run, or go on where it stopped", "run")
    train.add_argument("--launcher", choices=("local", "slurm"), default="local", help="here, or as a SLURM job")
    train.add_argument("--save-seconds", type=float, default=600, help="seconds between two checkpoints")
    train.add_argument("--slurm", default="{}", help="JSON of submitit's SLURM parameters")
    add("milestone", _milestone, "publish the weights that a training kept at an epoch", "run")
    sample = add("sample", _sample, "draw the samples of a run", "run")
    sample.add_argument("--batch-size", type=int, default=128, help="images at a time")
    add("latency", _latency, "measure the seconds for one image", "run")
    add("evaluate", _evaluate, "FID, sFID, Inception Score, precision and recall of a run's samples", "run")
    for name, stage, help in (
        ("table", _table, "write a table as CSV, Markdown and LaTeX"),
        ("experiment", _experiment, "compute what the figure of an experiment shows"),
        ("figure", _figure, "draw a figure"),
    ):
        command = add(name, stage, help, "name")
        command.add_argument("--study", help="paper, small or demo; params.yaml's `study` if not given")
    add("unlock", _unlock, "remove the lock that a killed Snakemake left in this folder")
    for command in commands.choices.values():
        command.add_argument("--spec", help=argparse.SUPPRESS)
    return parser


def _set_threads() -> None:
    """Use the cores that the workflow gave to this job (OMP_NUM_THREADS), not all that there are."""
    if threads := os.environ.get("OMP_NUM_THREADS"):
        import torch

        torch.set_num_threads(int(threads))


def _run(params: Params, name: str) -> Run:
    if name not in params.runs:
        raise reader.ParamsError(f"params.yaml: runs.{name}: there is no such run{reader.nearest(name, params.runs)}")
    return params.runs[name]


def _spec(options: argparse.Namespace, part: type[_Spec]) -> tuple[_Spec, RunFolder]:
    """The parameters that a stage works with, and the run's folder."""
    params = reader.load()
    run = _run(params, options.run)
    current = run.part(part)
    folder = RunFolder.of(run.study, run.name)
    if options.spec is None or options.spec == current.canonical():
        return current, folder
    logging.warning("params.yaml has changed since this job was planned; going on with what was planned")
    return part.parse(options.spec), folder


def _evaluation(options: argparse.Namespace) -> tuple[Params, Evaluation]:
    params = reader.load()
    if options.evaluation not in params.evaluation:
        near = reader.nearest(options.evaluation, params.evaluation)
        raise reader.ParamsError(f"params.yaml: evaluation.{options.evaluation}: there is no such evaluator{near}")
    return params, params.evaluation[options.evaluation]


def _prepare(options: argparse.Namespace) -> None:
    from dip.data.prepare import prepare

    params = reader.load()
    if options.dataset not in params.datasets:
        near = reader.nearest(options.dataset, params.datasets)
        raise reader.ParamsError(f"params.yaml: datasets.{options.dataset}: there is no such dataset{near}")
    prepare(options.dataset, params.datasets[options.dataset], Store.of(options.dataset))


def _features(options: argparse.Namespace) -> None:
    from dip.data.dataset import ImageStore
    from dip.evaluation.photo_network import save_photo_network, train_photo_network

    _, evaluation = _evaluation(options)
    extractor = evaluation.extractor
    if not isinstance(extractor, PhotoExtractor):
        raise ValueError(f"evaluation.{options.evaluation}: its feature network is a published one, not trained here")
    store = ImageStore(Store.of(extractor.dataset))
    network = train_photo_network(
        store.images, store.labels, len(store.class_names), num_steps=extractor.num_steps, seed=extractor.seed
    )
    save_photo_network(network, feature_network(options.evaluation))


def _reference(options: argparse.Namespace) -> None:
    from dip.evaluation.stage import make_reference

    params, evaluation = _evaluation(options)
    make_reference(options.evaluation, evaluation, params.datasets, reference(options.evaluation))


def _train(options: argparse.Namespace) -> None:
    from dip.training.launch import launch

    spec, folder = _spec(options, TrainingSpec)
    launch(
        options.run,
        spec,
        folder,
        launcher=options.launcher,
        save_seconds=options.save_seconds,
        slurm=json.loads(options.slurm),
    )


def _milestone(options: argparse.Namespace) -> None:
    from dip.training.launch import publish_milestone

    spec, folder = _spec(options, MilestoneSpec)
    publish_milestone(spec, folder)


def _sample(options: argparse.Namespace) -> None:
    from dip.sampling.generate import sample_run

    spec, folder = _spec(options, SamplingSpec)
    sample_run(spec, folder.weights(spec), folder, batch_size=options.batch_size)


def _latency(options: argparse.Namespace) -> None:
    from dip.sampling.latency import measure_latency

    spec, folder = _spec(options, SamplingSpec)
    measure_latency(spec, folder.weights(spec), folder.latency)


def _evaluate(options: argparse.Namespace) -> None:
    from dip.evaluation.stage import evaluate_run

    spec, folder = _spec(options, EvaluationSpec)
    evaluate_run(spec, folder)


def _unlock(options: argparse.Namespace) -> None:
    from dip.unlock import unlock

    unlock()


def _study(options: argparse.Namespace, section: str) -> tuple[Params, str]:
    params = reader.load()
    study = options.study or params.study
    entries = getattr(params, section)
    if study not in entries.get(options.name, {}):
        raise reader.ParamsError(f"params.yaml: {section}.{options.name}.{study}: there is no such entry")
    return params, study


def _table(options: argparse.Namespace) -> None:
    from dip.reporting.collect import write_table

    write_table(*_study(options, "tables"), options.name)


def _experiment(options: argparse.Namespace) -> None:
    from dip.reporting.collect import run_experiment

    run_experiment(*_study(options, "figures"), options.name)


def _figure(options: argparse.Namespace) -> None:
    from dip.reporting.collect import draw_figure

    draw_figure(*_study(options, "figures"), options.name)


if __name__ == "__main__":
    main()
