"""What the commands share: the names that they take, and where they run."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dip import params as reader
from dip.paths import RunFolder
from dip.schema import Params, Run, TrainingSpec

if TYPE_CHECKING:
    from dip.launch.jobs import Job

Add = Callable[..., argparse.ArgumentParser]
"""Adds a command: `add(name, stage, help, *positional)`."""
_Spec = TypeVar("_Spec", bound=TrainingSpec)


def count(text: str) -> int:
    """A whole number above 0."""
    if (value := int(text)) < 1:
        raise ValueError
    return value


def count_or_0(text: str) -> int:
    """A whole number from 0 on."""
    if (value := int(text)) < 0:
        raise ValueError
    return value


def seconds(text: str) -> float:
    """A time from 0 on; `inf` is never."""
    value = float(text)
    if not value >= 0:  # as is NaN
        raise ValueError
    return value


def find_run(params: Params, name: str) -> Run:
    """A run of params.yaml, or `ParamsError`."""
    if name not in params.runs:
        raise reader.ParamsError(f"params.yaml: runs.{name}: there is no such run{reader.nearest(name, params.runs)}")
    return params.runs[name]


def known_study(params: Params, study: str) -> str:
    """The study itself if params.yaml has it, or `ParamsError`."""
    if study not in params.studies:
        near = reader.nearest(study, params.studies)
        raise reader.ParamsError(f"params.yaml: studies.{study}: there is no such study{near}")
    return study


def planned_spec(options: argparse.Namespace, part: type[_Spec]) -> tuple[_Spec, RunFolder]:
    """The parameters that a stage works with, and the run's folder.

    Raises:
        ValueError: params.yaml has no such run, or gives it the weights of another where it would be trained.
    """
    params = reader.load()
    run = find_run(params, options.run)
    if part is TrainingSpec:
        _check_own_training(run)
    current = run.part(part)
    folder = RunFolder.of(run.study, run.name)
    if options.spec is None or options.spec == current.canonical():
        return current, folder
    logging.warning("params.yaml has changed since this job was planned; going on with what was planned")
    return part.parse(options.spec), folder


def _check_own_training(run: Run) -> None:
    """Refuse to train what takes its weights from elsewhere: the result would lie where those belong."""
    if run.checkpoint is not None:
        then = f", then `dip milestone {run.name}`" if run.is_milestone else f"; {run.name} samples with its weights"
        raise ValueError(
            f"{run.name} takes the weights of {run.checkpoint.run} (params.yaml: runs.{run.name}.checkpoint); run "
            f"`dip train {run.checkpoint.run}`{then}"
        )


def record(rule: str, name: str, study: str | None = None, *, spec: str | None = None, **more: Any) -> None:
    """Write beside the outputs of a job what they were made with.

    Args:
        rule: Name of its rule.
        name: What it is applied to.
        study: Of a table or figure.
        spec: The parameters that it was planned with, if not those of params.yaml.
        more: See `dip.provenance.record`.
    """
    from dip import provenance
    from dip.data.packaged import copy_photograph
    from dip.pipeline import Pipeline

    pipeline = Pipeline(reader.load())
    job = pipeline.find(rule, name, study)
    for needed in pipeline.upstream(job):
        if needed.rule == "photograph" and not needed.outputs["image"].exists():
            copy_photograph(needed.outputs["image"].stem)  # it was read in its package
            provenance.record(needed)
    provenance.record(job.planned(spec) if spec else job, **more)


def start(job: Job, options: argparse.Namespace) -> None:
    """Have a job done where the options say."""
    from dip.launch.launcher import Launcher, launch

    launch(job, Launcher(options.launcher, getattr(options, "processes", 1), options.slurm))
