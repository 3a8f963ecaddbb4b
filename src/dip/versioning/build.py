"""`dip build`: the stage of DVC that has Snakemake make everything that is not up to date, in parallel."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from dip.files import atomic_write, sha256, write_json
from dip.paths import WORK, StudyFolder
from dip.pipeline import Job, Pipeline
from dip.unlock import snakemake_at_work
from dip.versioning.call import current_call
from dip.versioning.stages import file_of, stage_files, stage_of, write_if_changed, write_stages

_log = logging.getLogger(__name__)
_STAGES = Path("dvc.yaml")
_EXPERIMENTS = Path(".dvc") / "tmp" / "exps"  # where DVC runs experiments of its queue, each in a folder of its own


def build(pipeline: Pipeline, study: str, also: Path | None = None) -> None:
    """Have Snakemake make what this call of DVC asks for, or all of the study, and note that nothing is left to do.

    Args:
        pipeline: All jobs.
        study: Name of the study.
        also: A file that has to be there in the end, also where only what is made from it would be needed.

    Raises:
        ValueError: Snakemake is at work in this folder, no profile is set for the study, or a job failed.
    """
    if process := snakemake_at_work():
        raise ValueError(f"Snakemake is at work in this folder (process {process}); wait for it, then run this again")
    profile = profile_of(study)
    _share_work()
    refresh(pipeline, study)
    folder, asked = StudyFolder(study), _asked(pipeline, study)
    targets = [str(next(iter(job.outputs.values()))) for job in asked]
    if also is not None:
        if (job := pipeline.maker(also)) is None:
            raise ValueError(
                f"{also}: params.yaml has no such job any more, and DVC still has its stage; run the same command again"
            )
        targets = [*(targets or ["all"]), str(also)]
        asked = [*asked, job] if asked else []
    folder.last_build.unlink(missing_ok=True)
    command = ["snakemake", "--profile", profile, "--config", f"study={study}"]
    if exit_code([*command, "--", *targets] if targets else command):
        raise ValueError(
            f"Snakemake could not make everything of study '{study}': see above; what is done stays, trainings keep "
            "their checkpoints, and the same command goes on. DVC has recorded nothing that depends on it"
        )
    done = [str(job.provenance) for job in pipeline.with_upstream(asked)] if asked else None  # None: all
    write_json(folder.last_build, {"params": sha256(folder.params), "jobs": done})
    write_if_changed(folder.built, "What comes after this file comes after Snakemake.\n")
    call = current_call()
    if call is not None and folder.changed.exists() and folder.changed.stat().st_mtime > call.began:
        _log.warning("%s", folder.changed.read_text())


def record(study: str) -> None:
    """Record a study whose first stages were written in the current call of DVC, which does not know them.

    Raises:
        ValueError: A stage could not be recorded.
    """
    folder, call = StudyFolder(study), current_call()
    if call is not None and folder.first.exists() and folder.first.stat().st_mtime > call.began:
        # Stage by stage as they stand in the file: the others are at work in the call that this is part of.
        files = map(str, stage_files(study))
        if exit_code(["dvc", "repro", "--single-item", *files]):
            raise ValueError(f"the stages in {folder.folder} could not be recorded: see above")
        # As DVC does with its own files (core.autostage): an experiment has what git knows.
        subprocess.run(["git", "add", "--", str(folder.folder)], check=False)
        folder.first.unlink()
    write_if_changed(folder.known, "All stages of this study are known to DVC.\n")


def refresh(pipeline: Pipeline, study: str) -> None:
    """Write the stages of a study anew, and say so if DVC has read others.

    Args:
        pipeline: All jobs.
        study: Name of the study.

    Raises:
        ValueError: DVC is at work and has stages that are gone.
    """
    changes, marker = write_stages(pipeline, study), StudyFolder(study).changed
    if not changes:
        return
    names = [*changes.gone, *changes.others]
    listed = f"{', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
    what = f"the stages of study '{study}' have changed ({listed})"
    if current_call() is None:
        _log.info("%s", what)
        return
    if changes.gone:
        raise ValueError(f"{what}, and this call of DVC still has those that are gone: run the same command again")
    text = f"{what}, and this call of DVC has the earlier ones: run the same command again to record all"
    with atomic_write(marker) as file:
        file.write(text)
    _log.warning("%s; nothing is made twice", text)


def exit_code(command: Sequence[str]) -> int:
    """Exit code of a command. It has got an interrupt of this process as well, and ends by it in its own time.

    `subprocess.run` would kill it after a quarter of a second, and Snakemake leave its lock.
    """
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def profile_of(study: str) -> str:
    """The profile of Snakemake that dvc.yaml sets for a study.

    Raises:
        ValueError: It sets none.
    """
    try:
        variables = yaml.safe_load(_STAGES.read_text())["vars"]
        return str(next(entry["profiles"] for entry in variables if "profiles" in entry)[study])
    except (OSError, yaml.YAMLError, KeyError, TypeError, StopIteration):
        raise ValueError(
            f"{_STAGES}: no profile of Snakemake is set for study '{study}'; add a line `{study}: "
            "workflow/profiles/local` under vars, profiles"
        ) from None


def _asked(pipeline: Pipeline, study: str) -> list[Job]:
    """Jobs whose stages or files the current call of DVC names; none if it asks for something else, or everything."""
    call = current_call()
    targets = () if call is None else call.targets
    names: dict[str, list[Job]] = {}
    for job in pipeline.jobs(study):
        path = file_of(job, study)
        # A stage is named with its file or, where that lies in the folder of the call, without it.
        stage = (f"{path}:{stage_of(job)}", str(path.parent / stage_of(job)))
        for name in (str(path), *stage, *map(str, job.outputs.values())):
            names.setdefault(name, []).append(job)
    if not all(target in names for target in targets):
        return []
    return [job for target in targets for job in names[target]]


def _share_work() -> None:
    """In the folder of a queued experiment, work on the checkpoints of the repository, so that they outlive it."""
    here = Path.cwd()
    if here.parent.parts[-3:] == _EXPERIMENTS.parts and not WORK.exists():
        repository = here.parents[len(_EXPERIMENTS.parts)]
        (repository / WORK).mkdir(exist_ok=True)
        WORK.symlink_to(os.path.relpath(repository / WORK, here))
