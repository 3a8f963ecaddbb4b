"""Results that Snakemake did not make (`dvc pull`, `dvc exp apply`, a copy, a stage called by hand): let it know them.

Snakemake knows what it has made by its own records and by times of files, which do not travel. The provenance file
beside every artefact does: where it agrees with params.yaml and with the content of all files, the result is what
Snakemake would make, and its record is written anew (`snakemake --touch`). Nothing else is taken over. Where it says
other parameters than Snakemake's record does, what Snakemake made is gone, and its record is given up.
"""

from __future__ import annotations

import base64
import functools
import json
import logging
import os
import subprocess
from pathlib import Path
from typing import Any

from dip.files import write_json
from dip.paths import SNAKEMAKE
from dip.pipeline import Job, Pipeline
from dip.provenance import Checksums, Provenance, differences, read

_log = logging.getLogger(__name__)
_ADOPTING = "DIP_ADOPTING"  # set for the Snakemake that is called here, which must not call another one
_NAME_MAX = 254  # characters of a file name of a record; longer ones are folders, each with an @


def adopt(pipeline: Pipeline) -> int:
    """Have Snakemake take over the results that it does not know and that are as it would make them.

    Args:
        pipeline: All jobs.

    Returns:
        How many jobs' results it did not know.

    Raises:
        ValueError: Snakemake could not be called.
    """
    if _ADOPTING in os.environ or any((SNAKEMAKE / "locks").glob("*")):
        return 0
    checksums = Checksums()
    current = _Current(pipeline, checksums)
    there = [job for job in pipeline.all_jobs() if all(path.exists() for path in job.outputs.values())]
    for job in there:
        if _is_replaced(job):
            _give_up(job)
    unknown = [job for job in there if _is_unknown(job) and current.is_current(job)]
    if unknown:
        known = [job for job in there if current.is_current(job)]
        _touch([str(next(iter(job.outputs.values()))) for job in known])
        jobs = "1 job was" if len(unknown) == 1 else f"{len(unknown)} jobs were"
        _log.warning("%s not done by Snakemake here, and the results are as it would make them: taken over", jobs)
    checksums.save()
    return len(unknown)


class _Current:
    """Whether a job's outputs are what it would make now, by content."""

    def __init__(self, pipeline: Pipeline, checksums: Checksums) -> None:
        self._pipeline, self._checksums = pipeline, checksums
        self._above = functools.cache(self._find)

    def is_current(self, job: Job) -> bool:
        return self._above(job.provenance)

    def _find(self, provenance: Path) -> bool:
        job = self._pipeline.maker(provenance)
        assert job is not None
        made = _made(job)
        if made is None or made.parameters != job.parameters:  # before anything is read through
            return False
        if not all(map(self.is_current, self._pipeline.upstream(job))):
            return False
        return not differences(job, made, self._checksums)


def _made(job: Job) -> Provenance | None:
    try:
        return read(job)
    except ValueError:
        return None


def _is_replaced(job: Job) -> bool:
    """Whether Snakemake would take outputs for those that it made with the parameters of now, and they are others."""
    if not _is_recorded(job, [_record(path) for path in job.outputs.values()]):
        return False
    made = _made(job)
    return made is not None and made.parameters != job.parameters


def _is_recorded(job: Job, records: list[dict[str, Any]]) -> bool:
    """Whether Snakemake's records of a job's outputs have the parameters of now."""
    return all(repr(job.spec) in (record.get("params") or ()) for record in records)


def _give_up(job: Job) -> None:
    """Have Snakemake find that a job's parameters have changed since it made the outputs."""
    for path in job.outputs.values():
        write_json(_place_of_record(path), {**_record(path), "params": []})


def _is_unknown(job: Job) -> bool:
    """Whether outputs, which are there, are not those of Snakemake's records: it might make them again for nothing."""
    records = [_record(path) for path in job.outputs.values()]
    if not _is_recorded(job, records):
        return True
    oldest = min(path.lstat().st_mtime_ns for path in job.outputs.values())
    newer = [str(path) for path in job.input_files if path.exists() and path.lstat().st_mtime_ns > oldest]
    made = _made(job) if newer else None
    if made is None:
        return bool(newer)
    # Snakemake reads what is newer, and compares it with what it remembers.
    seen = [record.get("input_checksums") or {} for record in records]
    return any(
        str(checksums.get(path)).rpartition(":")[2] != made.inputs.get(path) for path in newer for checksums in seen
    )


def _place_of_record(path: Path) -> Path:
    """Where Snakemake remembers a file that it has made."""
    name = base64.urlsafe_b64encode(str(path).encode()).decode()
    parts = [name[start : start + _NAME_MAX] for start in range(0, len(name), _NAME_MAX)]
    return SNAKEMAKE.joinpath("metadata", *(f"@{part}" for part in parts[:-1]), parts[-1])


def _record(path: Path) -> dict[str, Any]:
    """What Snakemake remembers of it."""
    try:
        content = json.loads(_place_of_record(path).read_text())
        return content if isinstance(content, dict) else {}
    except (OSError, ValueError):
        return {}


def _touch(targets: list[str]) -> None:
    # What a killed Snakemake had begun is complete where its provenance and all files agree: the job outlived it.
    options = ["--touch", "--forceall", "--ignore-incomplete", "--quiet", "rules"]
    command = ["snakemake", "--cores", "1", *options, "--", *targets]
    environment = {**os.environ, _ADOPTING: "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ValueError(f"the results that are there cannot be taken over: {(result.stderr or result.stdout)[-1000:]}")
