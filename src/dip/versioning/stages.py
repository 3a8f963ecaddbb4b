"""The stages of DVC: for every study a file of resolved parameters and a dvc.yaml, both written from params.yaml.

A stage records one job of Snakemake. It depends on the job's inputs and, key by key, on its parameters, as they stand
in the resolved file; so DVC's view of what an edit touches is Snakemake's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from dip.files import atomic_write
from dip.paths import StudyFolder
from dip.pipeline import Job, Pipeline
from dip.pipeline.jobs import RULES_OF_DATA

# Rules whose jobs have equal numbers of files, but for exceptions: their stages are one `foreach`.
_GROUPED = ("photograph", "train", "milestone", "sample", "latency", "evaluate")
_RECORD = "workflow/recorded"  # checks that a job's outputs are up to date, and has them made if they are not
_HEADER = """\
# Written by `dip stages {study}` from params.yaml, which is the file to edit.
# {what}
"""


def write_stages(pipeline: Pipeline, study: str) -> list[str]:
    """Write the resolved parameters and the stages of a study, and of all others that have some already.

    A file is written only if its content changes. Of a dataset that studies share, the one that has its stages keeps
    them.

    Args:
        pipeline: All jobs.
        study: Name of the study.

    Returns:
        Names of the study's stages that are new or gone, none if it had no stages before.
    """
    active = [name for name in pipeline.params.studies if name == study or StudyFolder.of(name).stages.exists()]
    before = stage_names(StudyFolder.of(study).stages)
    if not before:
        _write_first(study)
    for _ in range(len(active)):  # a study that leaves a dataset leaves its stages to another one
        for name in active:
            kept = [stage_names(StudyFolder.of(other).stages) for other in active if other != name]
            _write_study(pipeline, name, set().union(*kept))
    return sorted(before ^ stage_names(StudyFolder.of(study).stages)) if before else []


def _write_study(pipeline: Pipeline, study: str, elsewhere: set[str]) -> None:
    folder, jobs = StudyFolder.of(study), pipeline.jobs(study)
    parameters = _tree({key: value for job in jobs for key, value in job.parameters.items()})
    _write(folder.params, "All that the study's results depend on, without inheritance.", study, parameters, flow=None)
    own = [
        job
        for job in jobs
        if job.rule not in RULES_OF_DATA or not {f"{job.rule}@{job.name}", f"{job.rule}-{job.name}"} & elsewhere
    ]
    content = {
        "stages": {**_stages(own, folder), "recorded": _recorded(jobs, folder)},
        **_displays(pipeline, study, jobs),
    }
    _write(folder.stages, "Every stage records one job, which Snakemake does (stage `build`).", study, content)


def _write_first(study: str) -> None:
    """Note that the study has had no stages: a call of DVC that began before does not know them."""
    with atomic_write(StudyFolder.of(study).first) as file:
        file.write("")


def stage_names(path: Path) -> set[str]:
    """Names of the stages of a dvc.yaml, as DVC knows them; none if it is not there or is damaged."""
    try:
        stages = yaml.safe_load(path.read_text())["stages"]
        return {
            f"{name}@{item}" if "foreach" in stage else name
            for name, stage in stages.items()
            for item in stage.get("foreach", [name])
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return set()


def _stages(jobs: Iterable[Job], folder: StudyFolder) -> dict[str, Any]:
    """Stages by name: `rule@name` of jobs that differ in names only, `rule-name` of others."""
    jobs = list(jobs)
    shapes = {rule: Counter(_shape(job) for job in jobs if job.rule == rule) for rule in _GROUPED}
    stages: dict[str, Any] = {}
    for rule in dict.fromkeys(job.rule for job in jobs):
        of_rule = [job for job in jobs if job.rule == rule]
        grouped = [job for job in of_rule if rule in _GROUPED and _shape(job) == shapes[rule].most_common(1)[0][0]]
        if grouped:
            stages[rule] = _group(grouped, folder)
        for job in of_rule:
            if job not in grouped:
                stages[f"{rule}-{job.name}"] = _stage(_entries(job), folder)
    return stages


def _shape(job: Job) -> tuple[int, ...]:
    return tuple(len(entries) for entries in _entries(job).values())


def _entries(job: Job) -> dict[str, dict[str, str]]:
    """What a stage is made of, each entry by a name that it has in all jobs of the rule."""
    files = {name: path for name, path in job.outputs.items() if job.folder is None or job.folder not in path.parents}
    outs = files if job.folder is None else {"folder": job.folder, **files}
    return {
        "deps": {
            name if len(paths) == 1 else f"{name}{place}": str(path)
            for name, paths in job.inputs.items()
            for place, path in enumerate(paths, start=1)
        },
        "params": {f"parameter{place}": key for place, key in enumerate(job.parameters, start=1)},
        "outs": {name: str(path) for name, path in outs.items()},
        "checked": {"provenance": str(job.provenance)},
    }


def _group(jobs: list[Job], folder: StudyFolder) -> dict[str, Any]:
    """One `foreach` for all jobs: what differs between them by more than the name becomes a variable."""
    entries = {job.name: _entries(job) for job in jobs}
    variables: dict[str, dict[str, str]] = {job.name: {} for job in jobs}
    template: dict[str, dict[str, str]] = {}
    for kind, first in entries[jobs[0].name].items():
        template[kind] = {}
        for entry in first:
            named = {_with_name(entries[job.name][kind][entry], job.name) for job in jobs}
            template[kind][entry] = named.pop() if len(named) == 1 else f"${{item.{entry}}}"
            if named:
                for job in jobs:
                    variables[job.name][entry] = entries[job.name][kind][entry]
    if any(variables.values()):
        return {"foreach": variables, "do": _stage(template, folder)}
    simple = {
        kind: {entry: text.replace("${key}", "${item}") for entry, text in by_name.items()}
        for kind, by_name in template.items()
    }
    return {"foreach": list(variables), "do": _stage(simple, folder)}


def _with_name(text: str, name: str) -> str:
    """The text with `${key}` for every part of it that is the name."""
    if name in text.split("/"):
        return "/".join("${key}" if part == name else part for part in text.split("/"))
    if "/" not in text:
        return ".".join("${key}" if part == name else part for part in text.split("."))
    return text.replace(f"/{name}.", "/${key}.")


def _stage(entries: Mapping[str, Mapping[str, str]], folder: StudyFolder) -> dict[str, Any]:
    return {
        "wdir": "../..",
        "cmd": " ".join([_RECORD, folder.study, *entries["checked"].values()]),
        "deps": list(dict.fromkeys([str(folder.built), *entries["deps"].values()])),
        "params": [{str(folder.params): list(entries["params"].values())}],
        # Snakemake makes them; DVC must not delete what it has not recorded yet.
        "outs": [{path: {"persist": True}} for path in entries["outs"].values()],
    }


def _recorded(jobs: Iterable[Job], folder: StudyFolder) -> dict[str, Any]:
    """The stage that comes after all others."""
    ends = [str(next(iter(job.outputs.values()))) for job in jobs if job.rule in ("table", "figure", "evaluate")]
    samples = [str(job.outputs["grid"]) for job in jobs if job.rule == "sample"]
    return {
        "wdir": "../..",
        "cmd": f"{_RECORD} {folder.study} --all",
        "deps": [*ends, *samples],
        "outs": [{str(folder.recorded): {"persist": True}}],
    }


def _displays(pipeline: Pipeline, study: str, jobs: Iterable[Job]) -> dict[str, Any]:
    """What `dvc metrics`, `dvc plots` and `dvc artifacts` show; paths are relative to the study's dvc.yaml."""
    jobs = list(jobs)
    up = "../.."
    trained = [job for job in jobs if job.rule == "train"]
    curves = {f"{up}/{job.outputs['curves']}": "loss" for job in trained}
    plots: list[dict[str, Any]] = []
    if curves:
        plots.append({"loss": {"x": "step", "y": curves, "x_label": "step", "y_label": "loss", "title": "Training"}})
    for job in jobs:
        if job.rule == "figure":
            plots.append({f"{up}/{job.outputs['png']}": None})
    models = {
        job.name.replace("_", "-"): {
            "path": f"{up}/{job.outputs['model']}",
            "type": "model",
            "desc": f"{pipeline.params.runs[job.name].label}: EMA weights, {pipeline.params.studies[study].title}",
            "labels": [study, pipeline.params.runs[job.name].model.head.name],
        }
        for job in jobs
        if "model" in job.outputs
    }
    metrics = [f"{up}/{job.outputs['metrics']}" for job in jobs if job.rule == "evaluate"]
    return {"metrics": metrics, "plots": plots, "artifacts": models}


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


def _write(path: Path, what: str, study: str, content: Mapping[str, Any], *, flow: bool | None = False) -> None:
    """Write a YAML file if its content changes; `flow=None` puts the innermost lists and mappings on one line."""
    settings: dict[str, Any] = {"sort_keys": False, "width": 120, "allow_unicode": True, "default_flow_style": flow}
    text = _HEADER.format(study=study, what=what) + yaml.dump(dict(content), Dumper=_Dumper, **settings)
    if not path.exists() or path.read_text() != text:
        with atomic_write(path) as file:
            file.write(text)


class _Dumper(yaml.SafeDumper):
    """Every value written out: DVC's reader and people need no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
