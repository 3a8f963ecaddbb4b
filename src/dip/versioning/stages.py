"""The stages of DVC: for every study a file of resolved parameters and several dvc.yaml, written from params.yaml.

A stage records one job of Snakemake. It depends on the job's inputs and, key by key, on its parameters, as they stand
in the resolved file; so DVC's view of what an edit touches is Snakemake's. The stages of a run stand in a folder of
their own, `studies/<study>/runs/<run>/`, those of data in `studies/<study>/data/`, those of tables and figures in
`studies/<study>/`: DVC writes a lock file anew after every stage, so it must be small.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dip.files import atomic_write
from dip.paths import STUDIES, StudyFolder
from dip.pipeline import Job, Pipeline
from dip.pipeline.jobs import RULES_OF_DATA, RULES_OF_RUNS
from dip.schema import EvaluationSpec, SamplingSpec, TrainingSpec

# What the stages above the stage of a rule depend on.
_ABOVE: dict[str, type[TrainingSpec]] = {
    **dict.fromkeys(("milestone", "sample", "latency"), TrainingSpec),
    "evaluate": SamplingSpec,
    **dict.fromkeys(("table", "figure"), EvaluationSpec),
}
_RECORD = "workflow/recorded"  # checks that a job's outputs are up to date, and has them made if they are not
_HEADER = """\
# Written by `dip stages {study}` from params.yaml, which is the file to edit. A stage records one job, which Snakemake
# does in stage `build` of the first dvc.yaml.
"""
Stages = dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """What has become of a study's stages.

    Attributes:
        gone: Stages that are no more.
        others: Stages that are new, or have got other inputs, parameters or outputs.
    """

    gone: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.gone or self.others)


def write_stages(pipeline: Pipeline, study: str) -> Changes:
    """Write the resolved parameters and the stages of a study, and of all others that have some already.

    A file is written only if its content changes. Of a dataset that studies share, the one that has its stages keeps
    them. The folder of a study that params.yaml has no more is removed.

    Args:
        pipeline: All jobs.
        study: Name of the study.

    Returns:
        What has changed, nothing if the study had no stages before.
    """
    for path in STUDIES.glob("*/dvc.yaml"):
        if path.parent.name not in pipeline.params.studies:  # DVC refuses a file of which two stages are the makers
            shutil.rmtree(path.parent)
    active = [name for name in pipeline.params.studies if name == study or StudyFolder(name).stages.exists()]
    before = stages_of(study)
    if not before:
        with atomic_write(StudyFolder(study).first) as file:
            file.write("")
    for _ in range(len(active)):  # a study that leaves a dataset leaves its stages to another one
        for name in active:
            elsewhere = {stage for other in active if other != name for stage in _stages_in(StudyFolder(other).data)}
            _write_study(pipeline, name, elsewhere)
    after = stages_of(study)
    if not before:
        return Changes()
    others = (name for name, stage in after.items() if before.get(name) != stage)
    return Changes(tuple(name for name in before if name not in after), tuple(others))


def stage_files(study: str) -> list[Path]:
    """The dvc.yaml of a study in an order in which their stages can be done."""
    folder = StudyFolder(study)
    runs = sorted(folder.runs.glob("*/dvc.yaml"), key=lambda path: "train" not in _stages_in(path))
    return [path for path in (folder.data, *runs, folder.stages) if path.exists()]


def stages_of(study: str) -> Stages:
    """All stages of a study by the names by which DVC addresses them."""
    return {f"{path}:{name}": stage for path in stage_files(study) for name, stage in _stages_in(path).items()}


def stage_of(job: Job) -> str:
    """Name of the stage that records a job, within its file."""
    return job.rule if job.rule in RULES_OF_RUNS else f"{job.rule}-{job.name.split('.')[0]}"


def file_of(job: Job, study: str) -> Path:
    """The dvc.yaml with the stage of a job, if the study records it."""
    folder = StudyFolder(study)
    if job.rule in RULES_OF_RUNS:
        return folder.run(job.name)
    return folder.data if job.rule in RULES_OF_DATA else folder.stages


def _write_study(pipeline: Pipeline, study: str, elsewhere: set[str]) -> None:
    folder, jobs = StudyFolder(study), pipeline.jobs(study)
    parameters = _tree({key: value for job in jobs for key, value in job.parameters.items()})
    write_if_changed(folder.params, f"{json.dumps(parameters, indent=1, ensure_ascii=False)}\n")
    files: dict[Path, Stages] = {}
    for job in jobs:
        if job.rule not in RULES_OF_DATA or stage_of(job) not in elsewhere:
            path = file_of(job, study)
            # The others come after these, and so after Snakemake.
            first = not any(
                stage_of(needed) in files.get(file_of(needed, study), ()) for needed in pipeline.upstream(job)
            )
            files.setdefault(path, {})[stage_of(job)] = _stage(job, folder, _up(path), first=first)
    files.setdefault(folder.stages, {})["recorded"] = _recorded(jobs, folder)
    for path, stages in files.items():
        content = {"stages": stages, **_displays(pipeline, study, jobs, path)}
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
        write_if_changed(path, _HEADER.format(study=study) + text)
    for path in stage_files(study):
        if path not in files:  # with its lock file: of a run that is gone
            shutil.rmtree(path.parent)


def _stage(job: Job, folder: StudyFolder, up: str, *, first: bool) -> dict[str, Any]:
    """The stage that records a job.

    Parameters of a run that the stages above have too are left out: DVC has them in what those make.
    """
    above = _ABOVE[job.rule].model_fields if job.rule in _ABOVE else ()
    own = [key for key in job.parameters if not (key.startswith("runs.") and key.rpartition(".")[2] in above)]
    files = [path for path in job.outputs.values() if job.folder is None or job.folder not in path.parents]
    return {
        "wdir": up,
        "cmd": f"{_RECORD} {folder.study} {job.provenance}",
        "deps": [*([str(folder.built)] if first else []), *map(str, job.input_files)],
        "params": [{str(folder.params): own}],
        # Snakemake makes them; DVC must not delete what it has not recorded yet.
        "outs": [{str(path): {"persist": True}} for path in ([job.folder] if job.folder else []) + files],
    }


def _recorded(jobs: Iterable[Job], folder: StudyFolder) -> dict[str, Any]:
    """The stage that comes after all others."""
    ends = [job for job in jobs if job.rule in ("table", "figure", "evaluate", "sample")]
    return {
        "wdir": _up(folder.stages),
        "cmd": f"{_RECORD} {folder.study} --all",
        "deps": [str(next(iter(job.outputs.values()))) for job in ends],
        "outs": [{str(folder.recorded): {"persist": True}}],
    }


def _displays(pipeline: Pipeline, study: str, jobs: Iterable[Job], path: Path) -> dict[str, Any]:
    """What `dvc metrics`, `dvc plots` and `dvc artifacts` show of the stages of a file; paths are relative to it."""
    up, params, shown = _up(path), pipeline.params, dict[str, Any]()
    own = [job for job in jobs if file_of(job, study) == path]
    for job in own:
        if job.rule == "evaluate":
            shown["metrics"] = [f"{up}/{job.outputs['scores']}"]
        if job.rule in ("train", "milestone"):
            run = params.runs[job.name]
            artifact = {
                "path": f"{up}/{job.outputs['model']}",
                "type": "model",
                "desc": f"{run.label}: EMA weights of epoch {run.epochs}. {params.studies[study].title}",
                "labels": [study, run.model.head.name],
            }
            shown["artifacts"] = {job.name.replace("_", "-"): artifact}
    if path == StudyFolder(study).stages:
        curves = {f"{up}/{job.outputs['curves']}": "velocity_loss" for job in jobs if job.rule == "train"}
        axes = {"x": "step", "y": curves, "x_label": "step", "y_label": "velocity loss", "title": "Training"}
        figures = [{f"{up}/{job.outputs['png']}": None} for job in own if job.rule == "figure"]
        shown["plots"] = [*([{"training": axes}] if curves else []), *figures]
    return shown


def _tree(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings of values by their path; a path may lie above another one."""
    tree: dict[str, Any] = {}
    for key in sorted(parameters, key=lambda key: key.count(".")):
        *above, last = key.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place.setdefault(last, parameters[key])
    return tree


def _up(path: Path) -> str:
    """The repository's folder from the folder of a dvc.yaml."""
    return os.path.relpath(".", path.parent)


def _stages_in(path: Path) -> Stages:
    """The stages of a dvc.yaml by name; none if it is not there or is damaged."""
    try:
        return dict(yaml.load(path.read_text(), Loader=_Loader)["stages"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return {}


def write_if_changed(path: Path, text: str) -> None:
    """Write a file, unless it has this content already."""
    if not path.exists() or path.read_text() != text:
        with atomic_write(path) as file:
            file.write(text)


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it was built


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Every value written out: DVC's reader and people need no anchors. `${` in a text is no variable of DVC."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        return super().represent_str(data.replace("${", r"\${"))


_Dumper.add_representer(str, _Dumper.represent_str)
