"""`dip <stage>`: every rule of the workflow calls it, and a person can.

A stage takes its parameters from params.yaml by the name of the run. The workflow also passes what it planned
with (`--spec`): if params.yaml has been edited since, the planned parameters hold.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dip import params as reader
from dip.paths import JOBS, RunFolder, Store, feature_network, reference
from dip.schema import (
    Dataset,
    Evaluation,
    EvaluationSpec,
    MilestoneSpec,
    Params,
    PhotoExtractor,
    Run,
    SamplingSpec,
    TrainingSpec,
)

if TYPE_CHECKING:
    from dip.launch.jobs import Job

_Spec = TypeVar("_Spec", bound=TrainingSpec)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage; a mistake of the user ends in one line and exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports on every glyph of a PDF
    options = _parser().parse_args(arguments)
    _set_threads()
    try:
        options.stage(options)
    except (ValueError, OSError, RuntimeError) as error:
        if getattr(options, "launcher", None) == "debug":
            raise
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

    prepare = add("prepare", _prepare, "write the images and labels of a dataset to data/<dataset>", "dataset")
    verify = add("verify", _verify, "check a prepared dataset against its checksums and params.yaml", "dataset")
    for command in (prepare, verify):
        command.add_argument("--workers", type=_count, default=len(os.sched_getaffinity(0)), help="processes")
    add("features", _features, "train the feature network of an evaluator", "evaluation")
    add("reference", _reference, "write the images and statistics that samples are compared with", "evaluation")
    fetch = add("fetch", _fetch, "download the pretrained weights that runs need, before any job (needs internet)")
    fetch.add_argument("what", nargs="*", help="alignment (DINOv2), inception; both if not given")
    fetch.add_argument("--study", help="serve the runs of paper, small or demo; all runs if not given")
    train = add("train", _train, "train a run, or go on where it stopped", "run")
    train.add_argument("--processes", type=_count, default=1, help="processes of this machine, one per GPU")
    train.add_argument("--save-seconds", type=float, default=600, help="seconds between two checkpoints")
    train.add_argument("--save-steps", type=int, default=0, metavar="N", help="also save after every N steps; 0: not")
    train.add_argument("--micro-batch", type=int, default=0, metavar="N", help="images at a time on a device; 0: all")
    train.add_argument("--sample-every", type=int, default=0, metavar="N", help="steps between sample grids; 0: none")
    saving = "spend time to save memory"
    train.add_argument("--gradient-checkpointing", choices=("on", "off"), default="off", help=saving)
    add("milestone", _milestone, "publish the weights that a training kept at an epoch", "run")
    sample = add("sample", _sample, "draw the samples of a run", "run")
    sample.add_argument("--processes", type=_count, default=1, help="processes of this machine, one per GPU")
    sample.add_argument("--batch-size", type=_count, default=128, help="images at a time")
    sample.add_argument("--shard-size", type=_count, default=256, help="images that a kill can lose, in whole batches")
    sample.add_argument("--join", action="store_true", help="make shards of a sampling that another call began")
    gallery = add("gallery", _gallery, "draw samples of chosen classes under strong guidance", "run")
    gallery.add_argument("--classes", nargs="+", required=True, help="names or numbers, goldfish or 387 for example")
    gallery.add_argument("--cfg-scale", type=float, default=4.0, help="guidance; 4 in the paper's galleries")
    gallery.add_argument("--num-samples", type=_count, default=8, help="of each class")
    gallery.add_argument("--seed", type=int, default=0, help="of the noise")
    gallery.add_argument("--output", type=Path, default=Path("gallery.png"), help="PNG to write; a PDF comes beside it")
    latency = add("latency", _latency, "measure the seconds for one image, and images a second", "run")
    latency.add_argument("--search-seconds", type=float, default=300, help="time to look for the best batch")
    evaluate = add("evaluate", _evaluate, "FID, sFID, Inception Score, precision, recall of a run or of any samples")
    evaluate.add_argument("run", nargs="?", help="a run of params.yaml; or give --samples and --reference")
    evaluate.add_argument("--samples", type=Path, help="npz in the ADM format, or a folder of PNG files")
    evaluate.add_argument("--reference", help="npz (VIRTUAL_*.npz, for example), evaluator or prepared dataset")
    evaluate.add_argument("--inception", type=Path, metavar="FILE", help="weights; torch-fidelity's cache if not given")
    evaluate.add_argument("--num-samples", type=_count, help="how many there have to be; 50000 if not given")
    evaluate.add_argument("--output", type=Path, metavar="FILE", help="<samples>.metrics.json if not given")
    for command in (train, sample, latency, evaluate):
        where = "here, as a SLURM job, or here for a debugger"
        command.add_argument("--launcher", choices=("local", "slurm", "debug"), default="local", help=where)
        command.add_argument("--slurm", metavar="FILE", type=Path, default=JOBS, help="what SLURM jobs ask for")
    status = add("status", _status, "what became of the runs: state, step, time left, job")
    status.add_argument("--study", help="paper, small or demo, with the runs that have not begun; all if not given")
    status.add_argument("--json", action="store_true", help="as a JSON list")
    add("cancel", _cancel, "end what works on a run, as a SLURM job or here; it can go on later", "run")
    for name, stage, help in (
        ("table", _table, "write a table as CSV, Markdown and LaTeX"),
        ("experiment", _experiment, "compute what the figure of an experiment shows"),
        ("figure", _figure, "draw a figure"),
    ):
        command = add(name, stage, help, "name")
        command.add_argument("--study", help="paper, small or demo; params.yaml's `study` if not given")
    describe = add("describe", _describe, "parameters and cost of every run's model, beside the paper's figures")
    describe.add_argument("run", nargs="*", help="runs to describe; all of the study if none is given")
    describe.add_argument("--study", help="paper, small or demo; params.yaml's `study` if no run is given")
    describe.add_argument("--json", action="store_true", help="a list of objects with all digits instead of a table")
    add("unlock", _unlock, "remove the lock that a killed Snakemake left in this folder")
    for command in commands.choices.values():
        command.add_argument("--spec", help=argparse.SUPPRESS)
    return parser


def _count(text: str) -> int:
    """A whole number above 0."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def _set_threads() -> None:
    """Use the cores that the workflow gave to this job (OMP_NUM_THREADS), not all that there are."""
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # "2,1": two, and one in each when nested
    if threads.isdecimal() and int(threads) > 0:
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


def _fetch(options: argparse.Namespace) -> None:
    from dip.fetch import fetch

    params = reader.load()
    if options.study is not None:
        _known_study(params, options.study)
    fetch(params, options.what, options.study)


def _dataset(options: argparse.Namespace) -> tuple[Dataset, Store]:
    params = reader.load()
    if options.dataset not in params.datasets:
        near = reader.nearest(options.dataset, params.datasets)
        raise reader.ParamsError(f"params.yaml: datasets.{options.dataset}: there is no such dataset{near}")
    return params.datasets[options.dataset], Store.of(options.dataset)


def _prepare(options: argparse.Namespace) -> None:
    from dip.data.prepare import prepare

    prepare(options.dataset, *_dataset(options), num_workers=options.workers)


def _verify(options: argparse.Namespace) -> None:
    from dip.data.verify import verify

    manifest = verify(options.dataset, *_dataset(options), num_workers=options.workers)
    skipped = f", {len(manifest.skipped)} skipped" if manifest.skipped else ""
    logging.info("%d images in %d shard(s)%s: all in order", manifest.num_images, len(manifest.shards), skipped)


def _features(options: argparse.Namespace) -> None:
    import numpy as np

    from dip.data.dataset import ImageStore
    from dip.evaluation.photo_network import save_photo_network, train_photo_network

    _, evaluation = _evaluation(options)
    extractor = evaluation.extractor
    if not isinstance(extractor, PhotoExtractor):
        raise ValueError(f"evaluation.{options.evaluation}: its feature network is a published one, not trained here")
    store = ImageStore(Store.of(extractor.dataset))
    network = train_photo_network(
        np.asarray(store.images),
        store.labels,
        len(store.class_names),
        num_steps=extractor.num_steps,
        seed=extractor.seed,
    )
    save_photo_network(network, feature_network(options.evaluation))


def _reference(options: argparse.Namespace) -> None:
    from dip.evaluation.stage import make_reference

    params, evaluation = _evaluation(options)
    make_reference(options.evaluation, evaluation, params.datasets, reference(options.evaluation))


def _train(options: argparse.Namespace) -> None:
    from dip.launch.jobs import TrainingJob

    spec, folder = _spec(options, TrainingSpec)
    job = TrainingJob.of(
        options.run,
        folder,
        spec,
        save_seconds=options.save_seconds,
        save_steps=options.save_steps or None,
        micro_batch=options.micro_batch or None,
        gradient_checkpointing=options.gradient_checkpointing == "on",
        sample_every=options.sample_every or None,
    )
    _launch(job, options)


def _launch(job: Job, options: argparse.Namespace) -> None:
    from dip.launch.launcher import Launcher, launch

    launch(job, Launcher(options.launcher, getattr(options, "processes", 1), options.slurm))


def _milestone(options: argparse.Namespace) -> None:
    from dip.launch.jobs import publish_milestone

    spec, folder = _spec(options, MilestoneSpec)
    publish_milestone(spec, folder)


def _sample(options: argparse.Namespace) -> None:
    from dip.launch.jobs import SamplingJob

    spec, folder = _spec(options, SamplingSpec)
    settings = {"batch_size": options.batch_size, "shard_size": options.shard_size}
    job = SamplingJob.of(options.run, folder, spec, **settings)
    if options.join:
        from dip.sampling.generate import sample_run

        sample_run(spec, folder.weights(spec), RunFolder(job.work), **settings, join=True)
        return
    _launch(job, options)


def _gallery(options: argparse.Namespace) -> None:
    from dip.reporting.collect import draw_gallery

    params = reader.load()
    run = _run(params, options.run)
    settings = {"cfg_scale": options.cfg_scale, "num_samples": options.num_samples, "seed": options.seed}
    draw_gallery(params, run, options.classes, options.output, **settings)
    print(options.output)


def _latency(options: argparse.Namespace) -> None:
    from dip.launch.jobs import LatencyJob

    spec, folder = _spec(options, SamplingSpec)
    _launch(LatencyJob.of(options.run, folder, spec, search_seconds=options.search_seconds), options)


def _evaluate(options: argparse.Namespace) -> None:
    if options.run is None:
        _evaluate_files(options)
        return
    for name in ("samples", "reference", "inception", "num_samples", "output"):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for samples that belong to no run; leave out '{options.run}' or the option")
    from dip.launch.jobs import EvaluationJob

    spec, folder = _spec(options, EvaluationSpec)
    _launch(EvaluationJob.of(options.run, folder, spec), options)


def _evaluate_files(options: argparse.Namespace) -> None:
    from dip.evaluation.stage import evaluate_files

    if options.samples is None or options.reference is None:
        raise ValueError("give a run, or --samples and --reference")
    output, metrics = evaluate_files(
        options.samples,
        options.reference,
        options.output,
        evaluators=reader.load().evaluation if Path("params.yaml").exists() else {},
        inception=options.inception,
        **({} if options.num_samples is None else {"num_samples": options.num_samples}),
    )
    for name in ("fid", "sfid", "inception_score", "precision", "recall"):
        print(f"{name} {metrics[name]:.6g}")
    print("\n- ".join(["not the full protocol:" if metrics["deviations"] else "full protocol", *metrics["deviations"]]))
    print(output)


def _status(options: argparse.Namespace) -> None:
    from dip.launch.status import status

    params = reader.load()
    if options.study is not None:
        _known_study(params, options.study)
    print(status(params, options.study, as_json=options.json))


def _cancel(options: argparse.Namespace) -> None:
    from dip.launch.status import cancel

    params = reader.load()
    print("\n".join(cancel(params, _run(params, options.run).name)))


def _describe(options: argparse.Namespace) -> None:
    from dip.reporting.describe import describe, to_json, to_text

    params = reader.load()
    study = _known_study(params, options.study or params.study)
    runs = [_run(params, name) for name in options.run] or [run for run in params.runs.values() if run.study == study]
    if not runs:
        raise reader.ParamsError(f"params.yaml: runs: none belongs to study '{study}'")
    for run in runs:
        if options.study and run.study != study:
            raise reader.ParamsError(f"params.yaml: runs.{run.name}: belongs to study '{run.study}', not '{study}'")
    descriptions = list(describe(params, runs))
    print(to_json(descriptions) if options.json else to_text(descriptions))


def _known_study(params: Params, study: str) -> str:
    if study not in params.studies:
        near = reader.nearest(study, params.studies)
        raise reader.ParamsError(f"params.yaml: studies.{study}: there is no such study{near}")
    return study


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
