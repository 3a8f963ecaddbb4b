"""What an artefact was made with, and how that differs from now."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dip import provenance
from dip.params import load
from dip.pipeline import Job, Pipeline
from dip.provenance import Checksums, begun, changed_parameters, differences, read, record


@pytest.fixture
def job(workplace: Path) -> Job:
    """A job that has been done."""
    job = Pipeline(load()).find("evaluate", "dip")
    for path in (*job.input_files, *job.outputs.values()):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {path}")
    record(job)
    return job


def reasons(job: Job) -> list[str]:
    made = read(job)
    assert made is not None
    return differences(job, made, Checksums())


def test_says_by_what_it_was_made(job: Job) -> None:
    """Wrong: nobody could tell which parameters, inputs and code gave a result."""
    made = read(job)
    assert made is not None
    assert made.made_by == "evaluate dip"
    assert made.parameters == json.loads(json.dumps(job.parameters))
    assert set(made.inputs) == set(map(str, job.input_files))
    assert set(made.outputs) == {str(path) for name, path in job.outputs.items() if name != "provenance"}
    assert "torch" in made.code["packages"]
    assert reasons(job) == []


def test_inputs_are_those_that_the_job_began_with(job: Job) -> None:
    """Wrong: what changed while a job read it would pass for what the result was made of."""
    samples = job.inputs["samples"][0]
    running = begun(job)
    samples.write_text("other samples")
    record(running)
    assert reasons(job) == [f"{samples}: has changed"]


def test_changes_are_named(job: Job) -> None:
    """Wrong: a stale result would pass for current, or nobody would know why it is stale."""
    samples, metrics = job.inputs["samples"][0], job.outputs["metrics"]
    samples.write_text("other samples")
    metrics.unlink()
    changed = Job(**{**vars(job), "parameters": {**job.parameters, "runs.dip.num_samples": 11}})
    assert reasons(changed) == [
        "runs.dip.num_samples: was 10, is 11",
        f"{samples}: has changed",
        f"{metrics}: is missing",
    ]


def test_what_came_and_what_went_is_named(job: Job) -> None:
    """Wrong: a job with other inputs or outputs would be made again, and nobody would know why."""
    samples, reference = job.inputs["samples"][0], job.inputs["reference"][0]
    fewer = Job(**{**vars(job), "inputs": {"samples": (samples,)}})
    assert f"{reference}: is no input any more" in reasons(fewer)
    more = Job(**{**vars(job), "inputs": {**job.inputs, "more": (Path("params.yaml"),)}})
    assert reasons(more) == ["params.yaml: was no input"]
    job.outputs["metrics"].write_text("edited")
    assert reasons(job) == [f"{job.outputs['metrics']}: is not what evaluate dip made"]
    assert changed_parameters({"a": {"b": 1}}, {"a": {"c": 2}}) == [
        "a.b: was 1, is no parameter any more",
        "a.c: is 2, was no parameter",
    ]
    caption = "The same words at the beginning of two captions, which go on for more than a line, "
    (line,) = changed_parameters({"a": f"{caption}then."}, {"a": f"{caption}now."})
    assert 'more than a line, then.", is ...' in line and line.endswith('more than a line, now."')


def test_touched_file_is_no_change(job: Job) -> None:
    """Wrong: a copy or a checkout would count as another result."""
    job.inputs["samples"][0].touch()
    assert reasons(job) == []


def test_checksums_are_remembered_by_size_and_time(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: gigabytes would be read at every call; or a changed file would keep its old checksum."""
    path, counted = job.inputs["samples"][0], []
    monkeypatch.setattr(provenance, "sha256", lambda path: counted.append(path) or f"{len(counted)}")
    for expected in ("1", "1", "2"):
        if expected == "2":
            path.write_text("longer than it was before")
        checksums = Checksums()
        assert checksums.of(path) == expected
        checksums.save()


@pytest.mark.parametrize("stamp", ["time", "number"])
def test_file_of_the_same_size_is_read_again(job: Job, stamp: str) -> None:
    """Wrong: other content of the same length would pass for what a result was made with."""
    path, checksums = job.inputs["samples"][0], Checksums()
    before, found = checksums.of(path), path.stat()
    other = path.with_name("other") if stamp == "number" else path
    other.write_bytes(b"x" * found.st_size)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns + (stamp == "time")))
    other.replace(path)  # with the time of the first, as rsync and a checkout of a cache do
    assert checksums.of(path) != before


def test_damaged_file_is_named(job: Job) -> None:
    """Wrong: a traceback, or a damaged record would pass for a missing one."""
    job.provenance.write_text("{}")
    with pytest.raises(ValueError, match=r"metrics\.provenance\.json: cannot be read .*`snakemake .*metrics\.prov"):
        read(job)
    job.provenance.unlink()
    assert read(job) is None
