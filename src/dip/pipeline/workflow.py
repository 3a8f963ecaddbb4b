"""What the rules of Snakemake ask: from the wildcards of a target to its job, and what is wrong with a target."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dip.nearest import nearest
from dip.params import known
from dip.paths import DATA, PAPER, RESULTS, RunFolder, study_folder, study_prefix
from dip.pipeline.job import Job
from dip.pipeline.jobs import RULES_OF_REPORTS, RULES_OF_RUNS, Pipeline
from dip.pipeline.sources import Sources, check_weights
from dip.schema import ImageFiles, Run

_ALL_CORES = 9999  # of which Snakemake gives those that there are


class Workflow:
    """Jobs by the wildcards of Snakemake.

    Args:
        pipeline: All jobs.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self._sources = Sources(pipeline)

    def job(self, rule: str, wildcards: Any) -> Job:
        """The job of a rule that makes a target.

        Raises:
            ValueError: params.yaml has no such run, table or figure, or not in the study of the target; or a file
                of weights that params.yaml names is not there, or in a variable that is not set.
        """
        if rule in RULES_OF_RUNS:
            job = self.pipeline.find(rule, self.run(wildcards.study, wildcards.run).name)
        elif rule in RULES_OF_REPORTS:
            study, section = study_of(wildcards.study), "tables" if rule == "table" else "figures"
            if study not in getattr(self.pipeline.params, section).get(wildcards.name, {}):
                raise ValueError(f"params.yaml: {section}.{wildcards.name}.{study}: there is no such entry")
            job = self.pipeline.find(rule, wildcards.name, study)
        else:
            (name,) = wildcards
            job = self.pipeline.find(rule, name)
        check_weights(self.pipeline, job)
        return job

    def inputs(self, rule: str, wildcards: Any) -> dict[str, list[str]]:
        """Inputs of a job by name."""
        return {name: list(map(str, paths)) for name, paths in self.job(rule, wildcards).inputs.items()}

    def sources(self, rule: str, wildcards: Any) -> str:
        """Checksums of the files that the job depends on and no job makes."""
        return self._sources.spec(self.job(rule, wildcards))

    def targets(self, study: str) -> list[str]:
        """Tables, figures and sample grids of a study, but for the figures that are made on request."""
        chosen = {"table": "csv", "figure": "pdf", "sample": "grid"}
        return [str(job.outputs[chosen[job.rule]]) for job in self.pipeline.targets(study)]

    def figures(self, study: str) -> list[str]:
        """All figures of a study."""
        names = self.pipeline.figures(study)
        return [str(self.pipeline.find("figure", name, study).outputs["pdf"]) for name in names]

    def run(self, prefix: str, name: str) -> Run:
        """The run that a target names; it must belong to the study that the target's path names.

        Raises:
            ValueError: There is no such run, or it belongs to another study.
        """
        params = self.pipeline.params
        run = params.runs[known(params, "runs", name)]
        if study_prefix(run.study) != prefix:
            folder = RunFolder.of(run.study, run.name).folder
            raise ValueError(f"run '{run.name}' belongs to study '{run.study}': its results are in {folder}")
        return run

    def names(self, rule: str) -> str:
        """A pattern of the names that a rule is applied to."""
        return "|".join(sorted({re.escape(job.name) for job in self.pipeline.all_jobs() if job.rule == rule})) or "(?!)"

    def cores(self, dataset: str) -> int:
        """Cores that the preparation of a dataset can use: all where image files are decoded."""
        return _ALL_CORES if isinstance(self.pipeline.params.datasets[dataset], ImageFiles) else 1

    def check(self, target: str) -> None:
        """Name what params.yaml lacks for a target; Snakemake itself only says that no rule makes it.

        Raises:
            ValueError: There is no such study, run, table or figure, or no job writes this file.
        """
        path = Path(target)
        if path.parts[:1] not in (RESULTS.parts, DATA.parts):
            self._check_place(path)
        if path.parts[:1] not in (RESULTS.parts, DATA.parts) or self.pipeline.maker(path):
            return
        if parts := re.fullmatch(r"results/(?:([^/]+)/)??(?:runs/([^/]+)/.+|([^/.]+)\.[^/]+)", target):
            self._check_entry(target, parts[1] or PAPER, run=parts[2], name=parts[3])
        if path.exists() or not path.suffix:  # a folder, for an option
            return
        outputs = [job.outputs.items() for job in self.pipeline.all_jobs()]
        files = [file for named in outputs for name, file in named if name != "provenance"]
        beside = [file for file in files if file.parent == path.parent]
        raise ValueError(f"{target}: nothing makes this file{nearest(target, map(str, beside or files))}")

    def _check_place(self, path: Path) -> None:
        """Refuse a table or figure without its folder and a file with its whole path: Snakemake compares texts."""
        if path.is_absolute():
            meant = Path(os.path.relpath(path))
        elif path == Path(path.name) and not path.exists():
            meant = study_folder(self.pipeline.params.study) / path
        else:
            return
        if self.pipeline.maker(meant):
            raise ValueError(f"{path}: a target is named from here, {meant}")

    def _check_entry(self, target: str, study: str, *, run: str | None, name: str) -> None:
        """Refuse a target of a study, a run, or else a table or figure that params.yaml does not have."""
        params = self.pipeline.params
        if study not in params.studies:
            raise ValueError(f"{target}: params.yaml has no study '{study}'{nearest(study, params.studies)}")
        if run is not None:
            self.run(study_prefix(study), run)
            return
        names = [*self.pipeline.tables(study), *self.pipeline.figures(study)]
        if name not in names:
            near = nearest(name, names)
            raise ValueError(f"{target}: params.yaml has no table or figure '{name}' of study '{study}'{near}")


def failures(log: str) -> str:
    """The jobs that have failed, to stand at the end of what may be hours of output.

    Args:
        log: Snakemake's own.

    Returns:
        A line for each job, below one that says where the reasons are; empty if no job has failed.
    """
    blocks = re.findall(r"^Error in rule \w+:\n((?:    .*\n)+)", log, re.MULTILINE)
    found = (re.search(r"^    output: ([^,\n]+)(?:.*\n)+?    shell:\n +(\S+ \S+ \S+)", block, re.M) for block in blocks)
    lines = dict.fromkeys(f"  {match[2]}, which makes {match[1]}" for match in found if match)  # once where tried twice
    if not lines:
        return ""
    jobs = "1 job has" if len(lines) == 1 else f"{len(lines)} jobs have"
    return "\n".join([f"{jobs} failed, for reasons that stand above in lines that begin with `dip`:", *lines])


def study_of(prefix: str) -> str:
    """Name of the study in a target's path."""
    return prefix.rstrip("/") or PAPER


def study_asked(config: Mapping[str, Any]) -> str | None:
    """The study that `snakemake --config study=...` asks for.

    Raises:
        ValueError: There are other keys, which only the jobs that Snakemake hands its parameters to would follow.
    """
    if others := sorted(config.keys() - {"study"}):
        raise ValueError(
            f"--config {others[0]}: only `study` can be set there, because every job reads params.yaml; edit that "
            "file, or add a run with `dip ablation`"
        )
    return config.get("study")
