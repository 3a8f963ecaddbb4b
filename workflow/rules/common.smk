"""What the rules share: the parameters, and which file depends on which run."""

import json
import os
import re
import sys
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError

from dip.params import ParamsError, load, nearest
from dip.paths import JOBS, RunFolder, Store, experiment_data, feature_network, given_path, reference, study_prefix
from dip.schema import (
    Comparison,
    EvaluationSpec,
    Gallery,
    MilestoneSpec,
    PhotoExtractor,
    SamplingSpec,
    TrainingSpec,
)

# The rules call `dip`, also where the environment of this Snakemake was not activated.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])

try:
    PARAMS = load("params.yaml", overrides=config)
except ParamsError as error:
    raise WorkflowError(str(error)) from None


wildcard_constraints:
    study="|".join(f"(?:{study_prefix(name)})" for name in sorted(PARAMS.studies, key=lambda name: name == "paper")),
    run="[a-z][a-z0-9_]*",
    name="[a-z][a-z0-9_]*",


def run_of(wildcards):
    """The run that a target names; it must belong to the study that the target's path names."""
    run = PARAMS.runs.get(wildcards.run)
    if run is None:
        raise WorkflowError(
            f"params.yaml: runs.{wildcards.run}: there is no such run{nearest(wildcards.run, PARAMS.runs)}"
        )
    if study_prefix(run.study) != wildcards.study:
        folder = RunFolder.of(run.study, run.name).folder
        raise WorkflowError(f"run '{run.name}' belongs to study '{run.study}': its results are in {folder}")
    return run


def check_target(target):
    """Name what params.yaml lacks for a target; Snakemake itself only says that no rule makes it."""
    parts = re.fullmatch(r"results/(?:([^/]+)/)??(?:runs/([^/]+)/.+|([^/.]+)\.(?:csv|md|tex|pdf|png|npz))", target)
    if parts is None:
        return
    study, run, name = parts[1] or "paper", parts[2], parts[3]
    if study not in PARAMS.studies:
        raise WorkflowError(f"{target}: params.yaml has no study '{study}'{nearest(study, PARAMS.studies)}")
    if run is not None:
        run_of(SimpleNamespace(study=study_prefix(study), run=run))
        return
    names = [name for entries in (PARAMS.tables, PARAMS.figures) for name in entries if study in entries[name]]
    if name not in names:
        raise WorkflowError(
            f"{target}: params.yaml has no table or figure '{name}' of study '{study}'{nearest(name, names)}"
        )


def spec_of(part):
    """A function from wildcards to the part of the run's parameters that a rule depends on, as canonical JSON."""
    return lambda wildcards: run_of(wildcards).part(part).canonical()


def weights_of(wildcards):
    """The weights that a run samples with: its own, or those of the training it names."""
    run = run_of(wildcards)
    return RunFolder.of(run.study, run.name).weights(run)


def trained_by(run):
    """The run that holds the training log of a run."""
    return PARAMS.runs[run.checkpoint.run] if run.checkpoint else run


def study_of(wildcards):
    """Name of the study in a target's path."""
    return wildcards.study.rstrip("/") or "paper"


def entry_of(section, wildcards):
    """A table or figure of params.yaml."""
    study, entries = study_of(wildcards), getattr(PARAMS, section)
    if study not in entries.get(wildcards.name, {}):
        raise WorkflowError(f"params.yaml: {section}.{wildcards.name}.{study}: there is no such entry")
    return entries[wildcards.name][study]


def shown(section, without=()):
    """A function from wildcards to all that a table or figure depends on, as canonical JSON."""

    def content(wildcards):
        entry = entry_of(section, wildcards)
        runs = {name: json.loads(PARAMS.runs[name].canonical()) for name in entry.runs}
        settings = entry.model_dump(mode="json", exclude=set(without))
        return json.dumps({"entry": settings, "runs": runs}, sort_keys=True)

    return content


def entries_of(section, study):
    """Tables or figures of a study, by name."""
    return {name: by_study[study] for name, by_study in getattr(PARAMS, section).items() if study in by_study}


def everything_of(study):
    """Tables, figures and grids of a study, but for the figures that are made on request."""
    folder = f"results/{study_prefix(study)}"
    tables = entries_of("tables", study)
    figures = {name: figure for name, figure in entries_of("figures", study).items() if not figure.on_request}
    runs = dict.fromkeys(run for entry in (*tables.values(), *figures.values()) for run in entry.runs)
    return (
        [f"{folder}{name}.csv" for name in tables]
        + [f"{folder}{name}.pdf" for name in figures]
        + [RunFolder.of(study, run).grid for run in runs]
    )


for target in sys.argv[1:]:
    check_target(target)
