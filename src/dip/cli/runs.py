"""Commands for one run: training, samples, latency, metrics."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dip import params as reader
from dip.cli.common import Add, count, count_or_0, end, guidance, planned, seconds, seed, start
from dip.files import check_writable
from dip.paths import JOBS, RunFolder
from dip.schema import EvaluationSpec, MilestoneSpec, SamplingSpec, SolverSpec, TrainingSpec

_LATENCY = ("latency_seconds", "images_per_second", "best_batch_size")


def add_commands(add: Add) -> None:
    """Add them to the command line."""
    train = add("train", _train, "train a run, or go on where it stopped", "run")
    train.add_argument("--processes", type=count, default=1, help="processes of this machine, one per GPU")
    train.add_argument("--save-seconds", type=seconds, default=600, help="seconds between two checkpoints")
    for option, what in (
        ("--save-steps", "also save after every N steps; 0, the default: not"),
        ("--micro-batch", "images at a time on a device; 0, the default: all"),
        ("--sample-every", "steps between sample grids; 0, the default: none"),
    ):
        train.add_argument(option, type=count_or_0, default=0, metavar="N", help=what)
    saving = "spend time to save memory"
    train.add_argument("--gradient-checkpointing", choices=("on", "off"), default="off", help=saving)
    add("milestone", _milestone, "publish other weights that a training kept: of an epoch or an EMA decay", "run")
    sample = add("sample", _sample, "draw the samples of a run", "run")
    sample.add_argument("--processes", type=count, default=1, help="processes of this machine, one per GPU")
    sample.add_argument("--batch-size", type=count, default=128, help="images at a time")
    sample.add_argument("--shard-size", type=count, default=256, help="images that a kill can lose, in whole batches")
    sample.add_argument("--join", action="store_true", help="make shards of a sampling that another call began")
    gallery = add("gallery", _gallery, "draw samples of chosen classes under strong guidance", "run")
    gallery.add_argument("--classes", nargs="+", required=True, help="names or numbers, goldfish or 387 for example")
    gallery.add_argument("--cfg-scale", type=guidance, default=4.0, help="guidance; 4 in the paper's galleries")
    gallery.add_argument("--num-samples", type=count, default=8, help="of each class")
    gallery.add_argument("--seed", type=seed, default=0, help="of the noise; 0 if not given")
    gallery.add_argument("--output", type=Path, default=Path("gallery.png"), help="PNG to write; a PDF comes beside it")
    gallery.add_argument("--images", type=Path, metavar="FOLDER", help="write each sample there too, as its own PNG")
    latency = add("latency", _latency, "measure the seconds for one image, and images a second", "run")
    latency.add_argument("--search-seconds", type=seconds, default=300, help="time to look for the best batch")
    evaluate = add("evaluate", _evaluate, "FID, sFID, Inception Score, precision, recall of a run or of any samples")
    evaluate.add_argument("run", nargs="?", help="a run of params.yaml; or give --samples and --reference")
    evaluate.add_argument("--samples", type=Path, help="npz in the ADM format, or a folder of PNG files")
    evaluate.add_argument("--reference", help="npz (VIRTUAL_*.npz, for example), evaluator or prepared dataset")
    evaluate.add_argument("--inception", type=Path, metavar="FILE", help="weights; torch-fidelity's cache if not given")
    evaluate.add_argument("--num-samples", type=count, help="how many there have to be; 50000 if not given")
    output = "JSON to write; <samples>.metrics.json if not given"
    evaluate.add_argument("--output", type=Path, metavar="FILE", help=output)
    for command in (train, sample, latency):
        how = "plain, without arithmetic that is not needed, or also compiled; auto: compiled on a GPU, else fast"
        command.add_argument("--speed", choices=("auto", "plain", "fast", "compiled"), default="auto", help=how)
    for command in (train, sample, latency, evaluate):
        where = "here, as a SLURM job, or here for a debugger"
        command.add_argument("--launcher", choices=("local", "slurm", "debug"), default="local", help=where)
        command.add_argument("--slurm", metavar="FILE", type=Path, default=JOBS, help="what SLURM jobs ask for")


def _speed(options: argparse.Namespace) -> str | None:
    return None if options.speed == "auto" else options.speed


def _train(options: argparse.Namespace) -> None:
    from dip.launch.jobs import TrainingJob

    spec, folder, job = planned(options, TrainingSpec)
    training = TrainingJob.of(
        options.run,
        folder,
        spec,
        save_seconds=options.save_seconds,
        save_steps=options.save_steps or None,
        micro_batch=options.micro_batch or None,
        gradient_checkpointing=options.gradient_checkpointing == "on",
        speed=_speed(options),
        sample_every=options.sample_every or None,
    )
    start(training, options)
    end(job, code=_code_of(folder))


def _code_of(folder: RunFolder) -> dict[str, Any]:
    """Code revision and versions of a training as it began; it may have been published by a later call."""
    content = json.loads(folder.params.read_text())
    return {key: content[key] for key in ("git_revision", "python", "packages")}


def _milestone(options: argparse.Namespace) -> None:
    from dip.launch.jobs import publish_milestone

    spec, folder, job = planned(options, MilestoneSpec)
    publish_milestone(spec, folder)
    end(job)


def _sample(options: argparse.Namespace) -> None:
    from dip.launch.jobs import SamplingJob

    if options.join and (options.launcher == "slurm" or options.processes > 1):
        raise ValueError("--join helps from this process alone; leave --launcher and --processes out")
    spec, folder, job = planned(options, SamplingSpec)
    settings = {"batch_size": options.batch_size, "shard_size": options.shard_size, "speed": _speed(options)}
    sampling = SamplingJob.of(options.run, folder, spec, **settings)
    if options.join:
        from dip.sampling.generate import sample_run

        sample_run(spec, folder.weights(spec), RunFolder(sampling.work), **settings, join=True)
        return
    start(sampling, options)
    end(job)
    sampling.clear()


def _gallery(options: argparse.Namespace) -> None:
    from dip.reporting.study_figures import draw_gallery

    params = reader.load()
    run = params.runs[reader.known(params, "runs", options.run)]
    check_writable(options.output)
    if options.images is not None:
        check_writable(options.images / "0.png")
    settings = {"cfg_scale": options.cfg_scale, "num_samples": options.num_samples, "seed": options.seed}
    draw_gallery(params, run, options.classes, options.output, images=options.images, **settings)
    print(options.output)


def _latency(options: argparse.Namespace) -> None:
    from dip.launch.jobs import LatencyJob

    spec, folder, job = planned(options, SolverSpec)
    settings = {"search_seconds": options.search_seconds, "speed": _speed(options)}
    latency = LatencyJob.of(options.run, folder, spec, **settings)
    start(latency, options)
    end(job)
    _print_numbers(json.loads(folder.latency.read_text()), _LATENCY)
    latency.clear()


def _evaluate(options: argparse.Namespace) -> None:
    if options.run is None:
        _evaluate_files(options)
        return
    for name in ("samples", "reference", "inception", "num_samples", "output"):
        if getattr(options, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for samples that belong to no run; leave out '{options.run}' or the option")
    from dip.launch.jobs import EvaluationJob

    spec, folder, job = planned(options, EvaluationSpec)
    evaluation = EvaluationJob.of(options.run, folder, spec)
    start(evaluation, options)
    end(job)
    _print_scores(json.loads(folder.metrics.read_text()))
    evaluation.clear()


def _evaluate_files(options: argparse.Namespace) -> None:
    from dip.evaluation.stage import evaluate_files

    if options.samples is None or options.reference is None:
        raise ValueError("give a run, or --samples and --reference")
    if options.launcher == "slurm":
        raise ValueError("--launcher slurm is for a run of params.yaml; samples that belong to none are measured here")
    output, metrics = evaluate_files(
        options.samples,
        options.reference,
        options.output,
        evaluators=reader.load().evaluation if Path("params.yaml").exists() else {},
        inception=options.inception,
        **({} if options.num_samples is None else {"num_samples": options.num_samples}),
    )
    _print_scores(metrics)
    print(output)


def _print_numbers(content: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in names:
        print(f"{name} {content[name]:.6g}")


def _print_scores(metrics: Mapping[str, Any]) -> None:
    """The five numbers of an evaluation, and what keeps it from being the full protocol."""
    from dip.evaluation.stage import SCORES

    _print_numbers(metrics, SCORES)
    print("\n- ".join(["not the full protocol:" if metrics["deviations"] else "full protocol", *metrics["deviations"]]))
