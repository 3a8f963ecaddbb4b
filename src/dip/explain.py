"""`dip explain`: what an artefact was made with, whether it is up to date, and if not, why."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dip.nearest import nearest
from dip.pipeline import Job, Pipeline
from dip.pipeline.sources import check_weights
from dip.provenance import Checksums, Provenance, differences, leaves, read

_SHOWN = 12  # hexadecimal digits of a checksum
_NAMED = 4  # jobs of which it has been said above why they have to be done


def explain(pipeline: Pipeline, paths: Iterable[Path], *, parameters: bool = False) -> Iterator[str]:
    """Lines of text about artefacts; why a job has to be done again is said once.

    Args:
        pipeline: All jobs.
        paths: Files that a job makes, or folders of such files.
        parameters: Whether to list all parameters.

    Raises:
        ValueError: No job makes a file, or a provenance file is damaged.
    """
    checksums, told = Checksums(), dict[Path, list[str]]()
    for path in paths:
        for job in _jobs(pipeline, path):
            yield from _about(job, parameters)
            yield from _state(pipeline, job, told, checksums)
    with contextlib.suppress(OSError):  # of a disk that may only be read; the next call reads the files again
        checksums.save()


def _jobs(pipeline: Pipeline, path: Path) -> list[Job]:
    # Under whatever name of this folder it was given, that of a link for example, and through no link further down.
    whole = Path(os.path.normpath(path.absolute()))
    tops = (top for top in (whole, *whole.parents) if top.exists() and top.samefile("."))
    path = next((whole.relative_to(top) for top in tops), path)
    if job := pipeline.maker(path) or _filled(pipeline, path):
        return [job]
    jobs = {
        job.provenance: job for job in pipeline.all_jobs() if any(path in file.parents for file in job.outputs.values())
    }
    if not jobs:
        files = [str(file) for job in pipeline.all_jobs() for file in job.outputs.values()]
        raise ValueError(f"{path}: no job of params.yaml makes it{nearest(path, files)}")
    return list(jobs.values())


def _filled(pipeline: Pipeline, path: Path) -> Job | None:
    """The job that fills the folder in which a file lies: a part of a dataset is no output by its own name."""
    return next((job for job in pipeline.all_jobs() if job.folder in path.parents and path.exists()), None)


def _about(job: Job, parameters: bool) -> Iterator[str]:
    made = read(job)
    yield str(next(iter(job.outputs.values())))
    if made is None:
        yield f"  {job.title} has not made it" + (" (there is a file without its provenance)" if _any(job) else "")
    else:
        yield from _made(job, made, parameters)


def _state(pipeline: Pipeline, job: Job, told: dict[Path, list[str]], checksums: Checksums) -> Iterator[str]:
    """Whether an artefact is up to date, or which jobs have to be done before it is, each with its own reasons.

    Those that follow from another one only are left out.

    Args:
        pipeline: All jobs.
        job: The one that makes it.
        told: Reasons of the jobs of which it has been said already, by provenance file; these are added.
        checksums: Of files.
    """
    lines, above = list[str](), list[str]()
    for needed in pipeline.with_upstream([job]):
        if needed.provenance in told:
            above += [needed.title] if told[needed.provenance] else []
            continue
        told[needed.provenance] = reasons = _reasons(pipeline, needed, checksums)
        if reasons:
            lines += [f"    {needed.title}", *(f"      {reason}" for reason in reasons)]
    if above:
        more = f" and {len(above) - _NAMED} more" if len(above) > _NAMED else ""
        lines.append(f"    {', '.join(above[:_NAMED])}{more}: see above")
    yield from ["  not up to date:", *lines] if lines else ["  up to date"]


def _reasons(pipeline: Pipeline, job: Job, checksums: Checksums) -> list[str]:
    """Why a job has to be done again, whatever becomes of the others; nothing if it has not."""
    made = read(job)
    if made is None:
        return ["it has not been done" if not _any(job) else f"{job.provenance} is missing"]
    try:
        check_weights(pipeline, job)
    except ValueError as error:  # without them it is not known what its inputs are
        return [str(error)]
    return differences(job, made, checksums)


def _made(job: Job, made: Provenance, parameters: bool) -> Iterator[str]:
    yield f"  made by     {made.made_by}"
    packages = ", ".join(f"{name} {version}" for name, version in made.code.get("packages", {}).items())
    yield f"  code        {made.code.get('git_revision') or 'not a checkout of git'}; {packages}"
    for title, files in (("inputs", made.inputs), ("outputs", made.outputs)):
        for number, (path, checksum) in enumerate(files.items()):
            yield f"  {title if number == 0 else '':<11} {path}  {checksum[:_SHOWN]}"
    values = dict(leaves(made.parameters))
    yield f"  parameters  {len(values)}, in {job.provenance}" + ("" if parameters else "; --parameters lists them")
    if parameters:
        yield from (f"    {key}: {value!r}" for key, value in values.items())
    yield from map(_row, made.details.get("rows", ()))


def _row(row: dict[str, Any]) -> str:
    """Where a row of a table comes from."""
    line = f"  line {row['line']:<6} {row['method']}: "
    if row["source"] == "published":
        return line + f"Table {row['table']}, row {row['row']} of the paper ({row['file']}, line {row['line_of_file']})"
    files, checkpoint = row["files"], row["checkpoint"]
    return (
        f"{line}{row['folder']}, metrics.json {files['metrics']['sha256'][:_SHOWN]}, "
        f"{checkpoint['path']} {checkpoint['sha256'][:_SHOWN]}"
    )


def _any(job: Job) -> bool:
    return any(path.exists() for path in job.outputs.values())
