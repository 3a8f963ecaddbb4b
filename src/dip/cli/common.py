"""What the commands share: the names that they take, and where they run."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dip import params as reader
from dip.data.packaged import copy_photograph
from dip.paths import RunFolder
from dip.pipeline import Job, Pipeline
from dip.provenance import begun, record
from dip.schema import Params, Run, TrainingSpec
from dip.schema.base import MOST

if TYPE_CHECKING:
    from dip.launch import jobs

Add = Callable[..., argparse.ArgumentParser]
"""Adds a command: `add(name, stage, help, *positional)`."""
_Spec = TypeVar("_Spec", bound=TrainingSpec)


def count(text: str) -> int:
    """A whole number above 0."""
    if not 1 <= (value := int(text)) <= MOST:
        raise argparse.ArgumentTypeError(f"'{text}', expected 1 to {MOST}")
    return value


def count_or_0(text: str) -> int:
    """A whole number from 0 on."""
    if not 0 <= (value := int(text)) <= MOST:
        raise argparse.ArgumentTypeError(f"'{text}', expected 0 to {MOST}")
    return value


def seconds(text: str) -> float:
    """A time from 0 on; `inf` is never."""
    value = float(text)
    if not value >= 0:  # NaN is not, either
        raise argparse.ArgumentTypeError(f"'{text}', expected 0 or more")
    return value


def guidance(text: str) -> float:
    """A guidance scale: a finite number from 1, without guidance, on."""
    value = float(text)
    if not 1 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}', expected 1 or more")
    return value


def seed(text: str) -> int:
    """A whole number that PyTorch takes as a seed."""
    if not 0 <= (value := int(text)) < 2**63:
        raise argparse.ArgumentTypeError(f"'{text}', expected 0 to 2^63 - 1")
    return value


def planned(options: argparse.Namespace, part: type[_Spec]) -> tuple[_Spec, RunFolder, Job]:
    """The parameters that the command works with, the run's folder, and the job to record in the end.

    Raises:
        ValueError: params.yaml has no such run, or gives it the weights of another where it would be trained.
    """
    params = reader.load()
    run = params.runs[reader.known(params, "runs", options.run)]
    if part is TrainingSpec:
        _check_own_training(run)
    spec, folder = run.part(part), RunFolder.of(run.study, run.name)
    if options.spec is not None and options.spec != spec.canonical():
        try:
            spec = part.parse(options.spec)
        except ValueError as error:
            raise ValueError(f"--spec: expected {part.__name__} as JSON; {error}") from None
        logging.warning("params.yaml has changed since this job was planned; going on with what was planned")
    rule = options.command  # stages of a run are named as their rules
    return spec, folder, begin(params, rule, run.name).planned(spec.canonical())


def _check_own_training(run: Run) -> None:
    """Refuse to train what takes its weights from elsewhere: the result would lie where those belong."""
    if run.checkpoint is not None:
        then = f", then `dip milestone {run.name}`" if run.is_milestone else f"; {run.name} samples with its weights"
        raise ValueError(
            f"{run.name} takes the weights of {run.checkpoint.run} (params.yaml: runs.{run.name}.checkpoint); run "
            f"`dip train {run.checkpoint.run}`{then}"
        )


def begin(params: Params, rule: str, name: str, study: str | None = None) -> Job:
    """A job as it begins, which is what its provenance tells, whatever becomes of params.yaml until its end.

    The photographs that it reads are copied from their packages if they, or their provenance, are not there.

    Args:
        params: All of params.yaml.
        rule: Name of its rule.
        name: What it is applied to.
        study: Of a table or figure.
    """
    pipeline = Pipeline(params)
    job = pipeline.find(rule, name, study)
    for needed in pipeline.upstream(job):
        if needed.rule == "photograph" and not all(path.exists() for path in needed.outputs.values()):
            copy_photograph(needed.outputs["image"].stem)
            record(needed)
    return begun(job)


def end(job: Job, **recorded: Any) -> None:
    """Record a job that is done, as `record` does, and print the first file that it has made."""
    record(job, **recorded)
    print(next(iter(job.outputs.values())))


def start(job: jobs.Job, options: argparse.Namespace) -> None:
    """Have a job done where the options say."""
    from dip.launch.launcher import Launcher, launch

    launch(job, Launcher(options.launcher, getattr(options, "processes", 1), options.slurm))
