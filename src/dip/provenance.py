"""What an artefact was made with: a file beside it says it, and every copy of the artefact brings it along."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dip.environment import describe_environment
from dip.files import sha256, write_json
from dip.paths import SNAKEMAKE
from dip.pipeline.job import Job
from dip.schema.base import Schema

_SHOWN = 80  # characters of a value
_CHECKSUMS = SNAKEMAKE / "dip" / "checksums.json"


class Provenance(Schema):
    """Content of the file.

    Attributes:
        made_by: The job, "train demo_dip" for example.
        parameters: Values that the outputs depend on, by their path in the resolved parameters.
        inputs: SHA-256 of what the job read, by path.
        outputs: SHA-256 of what it wrote, by path.
        code: Git revision and package versions.
        details: More that the job has to say; a table names the sources of its rows.
    """

    made_by: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    code: dict[str, Any]
    details: dict[str, Any]


class Checksums:
    """SHA-256 of files; those of unchanged files (size and time) are remembered between calls."""

    def __init__(self) -> None:
        self._known: dict[str, list[Any]] = {}
        try:
            content = json.loads(_CHECKSUMS.read_text())
            self._known = content if isinstance(content, dict) else {}
        except (OSError, ValueError):
            pass
        self._changed = False

    def of(self, path: Path) -> str | None:
        """Checksum of a file, None if it is not there."""
        try:
            found = path.stat()
        except OSError:
            return None
        stamp = [found.st_size, found.st_mtime_ns, found.st_ino]
        known = self._known.get(str(path))
        if known is None or known[:3] != stamp:
            known = [*stamp, sha256(path)]
            self._known[str(path)] = known
            self._changed = True
        return str(known[3])

    def save(self) -> None:
        """Remember them for the next call."""
        if self._changed:
            write_json(_CHECKSUMS, self._known)
            self._changed = False


def begun(job: Job) -> Job:
    """A job as it begins, with the checksums of its inputs, whatever becomes of these while it reads them.

    Inputs that are missing have none; the job itself names them better.

    Raises:
        OSError: An input cannot be read.
    """
    return replace(job, began_with=_checksums(path for path in job.input_files if path.is_file()))


def record(job: Job, *, code: Mapping[str, Any] | None = None, details: Mapping[str, Any] | None = None) -> None:
    """Write down what a job's outputs, which are there, were made with.

    Args:
        job: The job as it began, with the parameters that it was done with.
        code: Git revision and versions, those of now if not given.
        details: What else there is to say.

    Raises:
        OSError: A file is missing, or the disk is full.
    """
    content = Provenance(
        made_by=job.title,
        parameters=job.parameters,
        inputs={str(path): job.began_with.get(str(path)) or sha256(path) for path in job.input_files},
        outputs=_checksums(path for path in job.outputs.values() if path != job.provenance),
        code=dict(code or describe_environment()),
        details=dict(details or {}),
    )
    write_json(job.provenance, content.model_dump(mode="json"))


def read(job: Job) -> Provenance | None:
    """What a job's outputs were made with, None where that is not known.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        return Provenance.parse(job.provenance.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{job.provenance}: cannot be read ({error}); remove it, and `snakemake --profile ... {job.provenance}` "
            f"has {job.title} done again"
        ) from None


def differences(job: Job, made: Provenance, checksums: Checksums) -> list[str]:
    """How what a job's outputs were made with differs from what there is now: a line for each difference."""
    return [
        *changed_parameters(made.parameters, job.parameters),
        *_changed_inputs(job, made, checksums),
        *_changed_outputs(job, made, checksums),
    ]


def changed_parameters(made: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for every value that differs between parameters then and now."""
    then, today = dict(leaves(made)), dict(leaves(now))
    lines = []
    for key in sorted({*then, *today}):
        if key not in today:
            lines.append(f"{key}: was {_text(then[key])}, is no parameter any more")
        elif key not in then:
            lines.append(f"{key}: is {_text(today[key])}, was no parameter")
        elif then[key] != today[key]:
            both = zip(json.dumps(then[key]), json.dumps(today[key]), strict=False)
            start = next((i for i, (one, other) in enumerate(both) if one != other), 0)
            lines.append(f"{key}: was {_text(then[key], start)}, is {_text(today[key], start)}")
    return lines


def _changed_inputs(job: Job, made: Provenance, checksums: Checksums) -> Iterator[str]:
    inputs = [str(path) for path in job.input_files]
    for path in inputs:
        if (found := checksums.of(Path(path))) is None:
            yield f"{path}: is missing"
        elif path not in made.inputs:
            yield f"{path}: was no input"
        elif found != made.inputs[path]:
            yield f"{path}: has changed"
    yield from (f"{path}: is no input any more" for path in made.inputs if path not in inputs)


def _changed_outputs(job: Job, made: Provenance, checksums: Checksums) -> Iterator[str]:
    for path in job.outputs.values():
        if path == job.provenance:
            continue
        if (found := checksums.of(path)) is None:
            yield f"{path}: is missing"
        elif found != made.outputs.get(str(path)):
            yield f"{path}: is not what {job.title} made"
    yield from (f"{path}: is missing" for path in _missing_files(job))


def _missing_files(job: Job) -> Iterator[Path]:
    """Files of a dataset that its manifest names and that are not there; of other jobs none."""
    if job.folder is None:
        return
    try:
        manifest = json.loads((job.folder / "manifest.json").read_text())
        files = [*manifest["shards"], manifest["labels"], manifest["index"]]
        yield from (path for file in files if not (path := job.folder / file["file"]).is_file())
    except (OSError, ValueError, KeyError, TypeError):
        yield job.folder / "manifest.json"  # it is missing, or is none


def _checksums(paths: Iterable[Path]) -> dict[str, str]:
    return {str(path): sha256(path) for path in paths}


def leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested mappings by their path."""
    if isinstance(tree, Mapping) and tree:
        for key, item in tree.items():
            yield from leaves(item, f"{place}.{key}" if place else str(key))
    else:
        yield place, tree


def _text(value: Any, start: int = 0) -> str:
    """A value, or of a long one what stands around a place."""
    text = json.dumps(value)
    if len(text) > _SHOWN and start > _SHOWN // 2:
        text = f"...{text[start - _SHOWN // 4 :]}"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
