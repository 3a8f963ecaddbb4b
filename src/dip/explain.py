"""`dip explain`: what an artefact was made with, whether it is up to date, and if not, why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dip.params import nearest
from dip.pipeline import Job, Pipeline
from dip.provenance import Checksums, Provenance, differences, leaves, read

_SHOWN = 12  # hexadecimal digits of a checksum


def explain(pipeline: Pipeline, path: Path, *, parameters: bool = False) -> Iterator[str]:
    """Lines of text about an artefact.

    Args:
        pipeline: All jobs.
        path: A file that a job makes, or a folder of such files.
        parameters: Whether to list all parameters.

    Raises:
        ValueError: No job makes the file, or a provenance file is damaged.
    """
    checksums = Checksums()
    for job in _jobs(pipeline, path):
        yield from _about(pipeline, job, checksums, parameters)
    checksums.save()


def _jobs(pipeline: Pipeline, path: Path) -> list[Job]:
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    if job := pipeline.maker(path):
        return [job]
    jobs = {
        job.provenance: job for job in pipeline.all_jobs() if any(path in file.parents for file in job.outputs.values())
    }
    if not jobs:
        files = [str(file) for job in pipeline.all_jobs() for file in job.outputs.values()]
        raise ValueError(f"{path}: no job of params.yaml makes it{nearest(path, files)}")
    return list(jobs.values())


def _about(pipeline: Pipeline, job: Job, checksums: Checksums, parameters: bool) -> Iterator[str]:
    made = read(job)
    yield str(next(iter(job.outputs.values())))
    if made is None:
        yield f"  {job.title} has not made it" + (" (there is a file without its provenance)" if _any(job) else "")
    else:
        yield from _made(job, made, parameters)
    reasons = dict(stale(pipeline, job, checksums))
    yield "  up to date" if not reasons else "  not up to date:"
    for title, lines in reasons.items():
        yield f"    {title}"
        yield from (f"      {line}" for line in lines)


def stale(pipeline: Pipeline, job: Job, checksums: Checksums) -> Iterator[tuple[str, list[str]]]:
    """The jobs that have to be done before a job's outputs are up to date, each with its own reasons.

    Those that follow from another one only are left out.

    Args:
        pipeline: All jobs.
        job: The job.
        checksums: Of files.
    """
    for needed in pipeline.with_upstream([job]):
        made = read(needed)
        if made is None:
            yield needed.title, ["it has not been done" if not _any(needed) else f"{needed.provenance} is missing"]
        elif lines := differences(needed, made, checksums):
            yield needed.title, lines


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
