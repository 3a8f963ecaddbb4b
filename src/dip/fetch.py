"""`dip fetch`: the pretrained weights that runs need, brought to where their jobs look for them, before any job.

Jobs themselves never download: the nodes of a cluster have no internet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dip.nearest import nearest
from dip.paths import given_path
from dip.schema import Alignment, InceptionExtractor, Params

_log = logging.getLogger(__name__)
WHAT = ("alignment", "inception")
"""What `dip fetch` takes: encoders of representation alignment, Inception of the ADM suite."""


@dataclass(frozen=True)
class Pretrained:
    """Weights that jobs read.

    Attributes:
        title: How messages name them.
        find: Where a job would find them; FileNotFoundError if it would not.
        download: Brings them there; None where params.yaml names a file of the user's.
        source: Where they come from.
    """

    title: str
    find: Callable[[], Path]
    download: Callable[[], object] | None
    source: str


def fetch(params: Params, what: Sequence[str] = (), study: str | None = None) -> dict[str, Path]:
    """Download the pretrained weights that are needed and not there yet; log where each of them lies.

    Args:
        params: params.yaml.
        what: Some of `WHAT`; none: all.
        study: Whose runs are served; None: all.

    Returns:
        Title to file.

    Raises:
        ValueError: Something that is not in `WHAT`, or an encoder that timm does not have.
        OSError: Some weights could not be brought, or their path is in a variable that is not set; all others were.
            Each is named with what to do.
    """
    for word in what:
        if word not in WHAT:
            raise ValueError(f"there is nothing to fetch named '{word}'{nearest(word, WHAT)}")
    files: dict[str, Path] = {}
    failures: list[str] = []
    for weights in needed(params, what or WHAT, study):
        try:
            files[weights.title] = _bring(weights)
        except (OSError, ValueError) as error:  # the latter of a variable that is not set
            failures.append(str(error))
    for title, path in files.items():
        _log.info("%s: %s", title, path)
    if failures:
        raise OSError("\n".join(failures))
    if not files:
        whose = f"study '{study}'" if study else "params.yaml"
        _log.info("nothing to fetch: no run of %s needs pretrained weights (%s)", whose, ", ".join(what or WHAT))
    return files


def needed(params: Params, what: Sequence[str] = WHAT, study: str | None = None) -> list[Pretrained]:
    """The weights that the runs of a study (None: of all) need, each once; arguments as in `fetch`."""
    runs = [run for run in params.runs.values() if study in (None, run.study)]
    weights: dict[tuple[str, str | None], Pretrained] = {}
    for run in runs:
        alignment, extractor = run.training.alignment, run.evaluation.extractor
        if alignment is not None and "alignment" in what:
            weights.setdefault((alignment.encoder, alignment.encoder_path), _encoder(alignment))
        if isinstance(extractor, InceptionExtractor) and "inception" in what:
            weights.setdefault(("inception", extractor.weights), _inception(run.evaluation_name, extractor))
    return list(weights.values())


def _bring(weights: Pretrained) -> Path:
    """The file, downloaded if it is not there."""
    try:
        return weights.find()
    except FileNotFoundError:
        if weights.download is None:
            raise  # the message says which key names the file
    _log.info("fetching %s from %s", weights.title, weights.source)
    try:
        weights.download()
    except Exception as error:  # huggingface_hub and torch.hub raise those of their HTTP libraries
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise OSError(
            f"{weights.title} could not be fetched from {weights.source} ({reason}). Run `dip fetch` on a machine with "
            "internet that sees the same caches, such as a login node, or copy the file from one that has it"
        ) from error
    return weights.find()


def _encoder(alignment: Alignment) -> Pretrained:
    from dip.diffusion import alignment as encoders

    name, path = alignment.encoder, alignment.encoder_path
    repository = encoders.find_repository(name)

    def download() -> object:
        from huggingface_hub import hf_hub_download

        return hf_hub_download(repository, encoders.WEIGHT_FILES[0])

    return Pretrained(
        title=f"{name} (training.alignment)",
        find=lambda: encoders.find_weights(name, path),
        download=download if path is None else None,
        source=f"huggingface.co/{repository}",
    )


def _inception(evaluation: str, extractor: InceptionExtractor) -> Pretrained:
    from dip.evaluation import inception

    key = f"evaluation.{evaluation}.extractor.weights"

    def find() -> Path:
        path = given_path(extractor.weights, key, "the weights of Inception") if extractor.weights else None
        return inception.find_inception_weights(path)

    def download() -> None:
        import torch

        target = inception.inception_cache()
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(inception.URL_INCEPTION_V3, str(target), inception.INCEPTION_SHA256)

    return Pretrained(
        title="InceptionV3 of the ADM suite (evaluation.*.extractor)",
        find=find,
        download=download if extractor.weights is None else None,
        source=inception.URL_INCEPTION_V3,
    )
