"""Checksums of the files that no job writes, or that a person may change: what every job below them depends on.

Snakemake deletes the outputs of a job that fails, and then takes what was made from them before for up to date. So the
content of a changed source is a parameter of all that comes after it, not only of the first job.
"""

from __future__ import annotations

import functools
from pathlib import Path

from dip.paths import given_path
from dip.pipeline.job import Job
from dip.pipeline.jobs import Pipeline
from dip.provenance import Checksums, read
from dip.schema.base import canonical_json


class Sources:
    """Checksums of the sources of jobs.

    Args:
        pipeline: All jobs.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._checksums = Checksums()
        self._above = functools.cache(self._find)

    def spec(self, job: Job) -> str:
        """Checksums of a job's sources by path, as canonical JSON."""
        content = canonical_json(dict(self._above(str(job.provenance))))
        self._checksums.save()
        return content

    def _find(self, provenance: str) -> tuple[tuple[str, str], ...]:
        job = self._pipeline.maker(Path(provenance))
        assert job is not None
        found: dict[str, str] = {}
        for path in job.input_files:
            maker = self._pipeline.maker(path)
            if maker is not None:
                found |= dict(
                    [self._photograph(maker)] if maker.rule == "photograph" else self._above(str(maker.provenance))
                )
            elif checksum := self._checksums.of(path):
                found[str(path)] = checksum
        return tuple(sorted(found.items()))

    def _photograph(self, job: Job) -> tuple[str, str]:
        """The copy of a photograph as it is once its job has been done, which leaves a changed copy as it is."""
        made, copy = read(job), self._checksums.of(job.outputs["image"])
        (packaged,) = job.parameters.values()
        kept = made is not None and made.parameters == job.parameters and copy is not None
        return str(job.outputs["image"]), str(copy if kept else packaged)


def check_weights(pipeline: Pipeline, job: Job) -> None:
    """Refuse a training without the weights that params.yaml names.

    To Snakemake they would be an input that is gone: it would remove the results and train again, in vain.

    Args:
        pipeline: All jobs.
        job: Any of them; only a training takes such weights.

    Raises:
        ValueError: There is no such file, or it is in a variable that is not set.
    """
    if job.rule != "train":
        return
    training = pipeline.params.runs[job.name].training
    encoder = training.alignment.encoder_path if training.alignment is not None else None
    for text, key in ((training.init_from, "init_from"), (encoder, "alignment.encoder_path")):
        where = f"runs.{job.name}.training.{key}"
        path = given_path(text, where, "a file of weights") if text is not None else None
        if path is not None and pipeline.maker(path) is None and not path.is_file():
            raise ValueError(f"params.yaml: {where}: there is no file '{path}'")
