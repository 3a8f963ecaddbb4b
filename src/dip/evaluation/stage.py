"""`dip reference` and `dip evaluate`: the protocol applied to the files of an evaluator and of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dip.data.photographs import held_out_crops
from dip.environment import pick_device
from dip.evaluation.features import Extractor, open_extractor
from dip.evaluation.protocol import evaluate, write_reference
from dip.files import atomic_copy, sha256, write_json
from dip.paths import RunFolder, feature_network, reference
from dip.schema import Dataset, Evaluation, EvaluationSpec, FileReference, PhotoExtractor, Photographs


def make_reference(name: str, evaluation: Evaluation, datasets: Mapping[str, Dataset], target: Path) -> None:
    """Write what samples are compared with: a checked copy of the ADM file, or crops that training never saw.

    Args:
        name: Name of the evaluator in params.yaml.
        evaluation: Its settings.
        datasets: Datasets by name, for their held-out regions.
        target: npz to write, in the layout of the ADM release.

    Raises:
        ValueError: The ADM file is not named, not there, or has another checksum.
    """
    if isinstance(evaluation.reference, FileReference):
        source = _reference_file(name, evaluation.reference)
        atomic_copy(source, target)
        return
    dataset = datasets[evaluation.reference.dataset]
    assert isinstance(dataset, Photographs)  # dip.checks
    images, _ = held_out_crops(dataset, evaluation.reference.num_images, evaluation.reference.seed)
    extractor = _extractor(name, evaluation)
    title = f"held-out crops of {evaluation.reference.dataset}"
    write_reference(target, images, extractor, name=title, device=str(pick_device()))


def evaluate_run(spec: EvaluationSpec, target: RunFolder) -> None:
    """Write metrics.json of a run's samples.

    Raises:
        ValueError: Samples, reference or feature network are missing, unreadable or do not fit each other.
    """
    settings = spec.evaluation.reference
    path = settings.path if isinstance(settings, FileReference) else None
    metrics = evaluate(
        target.samples,
        reference(spec.evaluation_name),
        _extractor(spec.evaluation_name, spec.evaluation),
        num_samples=spec.num_samples,
        k=spec.evaluation.neighbours,
        is_chunk_size=spec.evaluation.inception_score_chunk,
        reference_name=Path(path).name if path else None,  # the copy in data/ has lost it
        device=str(pick_device()),
    )
    write_json(target.metrics, metrics)


def _extractor(name: str, evaluation: Evaluation) -> Extractor:
    if isinstance(evaluation.extractor, PhotoExtractor):
        return open_extractor("photo", feature_network(name))
    weights = evaluation.extractor.weights
    return open_extractor("inception", os.path.expandvars(weights) if weights else None)


def _reference_file(name: str, settings: FileReference) -> Path:
    key = f"evaluation.{name}.reference.path"
    if settings.path is None:
        raise ValueError(f"params.yaml: {key} is not set; give it the reference file of the ADM release")
    expanded = os.path.expandvars(settings.path)
    if "$" in expanded:
        raise ValueError(
            f"params.yaml: {key} is '{settings.path}', and that environment variable is not set; point it at the "
            "reference file of the ADM release (VIRTUAL_*.npz), or write its path into params.yaml"
        )
    path = Path(expanded).expanduser()
    if not path.is_file():
        raise ValueError(f"params.yaml: {key}: there is no file '{path}'")
    if settings.sha256 is not None and (found := sha256(path)) != settings.sha256:
        raise ValueError(f"{path}: its SHA-256 is {found}, expected {settings.sha256}: another file, or a damaged one")
    return path
