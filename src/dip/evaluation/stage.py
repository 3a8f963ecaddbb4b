"""`dip reference` and `dip evaluate`: the protocol applied to the files of an evaluator, of a run, or to any files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dip.data.dataset import ImageStore
from dip.data.photographs import held_out_crops
from dip.environment import pick_device
from dip.evaluation.features import Extractor, ImageSet, open_extractor
from dip.evaluation.images import open_images
from dip.evaluation.npz import load_reference
from dip.evaluation.protocol import PROTOCOL_NUM_SAMPLES, check_pair, evaluate, write_reference
from dip.files import atomic_copy, check_writable, sha256, write_json
from dip.paths import RunFolder, Store, feature_network, given_path, reference
from dip.schema import (
    Dataset,
    DatasetReference,
    Evaluation,
    EvaluationSpec,
    FileReference,
    PhotoExtractor,
    Photographs,
)

SCORES = ("fid", "sfid", "inception_score", "precision", "recall")
"""Names of the numbers in metrics.json that tables show."""


def make_reference(name: str, evaluation: Evaluation, datasets: Mapping[str, Dataset], target: Path) -> None:
    """Write what samples are compared with.

    This is a checked copy of the ADM file, statistics of a prepared dataset, or crops that training never saw.

    Args:
        name: Name of the evaluator in params.yaml.
        evaluation: Its settings.
        datasets: Datasets by name.
        target: npz to write, in the layout of the ADM release.

    Raises:
        ValueError: The ADM file is not named, not there, damaged, of another size, or has another checksum; or the
            dataset is not prepared.
    """
    settings = evaluation.reference
    if isinstance(settings, FileReference):
        path = _reference_file(name, settings)
        _, height, width, _ = load_reference(path).images.shape
        if (height, width) != (evaluation.image_size, evaluation.image_size):
            raise ValueError(
                f"{path}: its images have {height} x {width} pixels, and evaluation.{name}.image_size is "
                f"{evaluation.image_size}: give evaluation.{name}.reference.path the file of that size"
            )
        atomic_copy(path, target)
        return
    dataset = datasets[settings.dataset]
    images: ImageSet
    if isinstance(settings, DatasetReference):
        images = ImageStore(Store.of(settings.dataset), dataset).images
        title, num_images = f"all {len(images)} images of {settings.dataset}", settings.num_images
    else:
        assert isinstance(dataset, Photographs)  # dip.checks
        images, _ = held_out_crops(dataset, settings.num_images, settings.seed)
        title, num_images = f"held-out crops of {settings.dataset}", settings.num_images
    write_reference(
        target,
        images,
        _extractor(name, evaluation),
        name=title,
        num_manifold_images=num_images,
        device=pick_device(),
        progress=True,
    )


def evaluate_run(spec: EvaluationSpec, target: RunFolder, work: RunFolder) -> None:
    """Write the metrics of a run's samples, in full and the numbers alone.

    Args:
        spec: Evaluator and protocol.
        target: The run's folder, with its samples.
        work: Folder to write to, the metrics in full last.

    Raises:
        ValueError: Samples, reference or feature network are missing, unreadable or do not fit each other.
    """
    content = evaluate(
        target.samples,
        reference(spec.evaluation_name),
        _extractor(spec.evaluation_name, spec.evaluation),
        num_samples=spec.num_samples,
        k=spec.evaluation.neighbours,
        is_chunk_size=spec.evaluation.inception_score_chunk,
        patch_size=spec.model.patch_size,
        **_name_of_file(spec.evaluation),
        device=pick_device(),
        progress=True,
    )
    write_json(work.scores, {name: content[name] for name in SCORES})
    write_json(work.metrics, content)


def evaluate_files(
    samples: Path,
    reference_name: str,
    output: Path | None = None,
    *,
    evaluators: Mapping[str, Evaluation],
    inception: Path | None = None,
    num_samples: int = PROTOCOL_NUM_SAMPLES,
) -> tuple[Path, dict[str, Any]]:
    """Write the metrics of any samples, also those of other projects.

    Args:
        samples: npz in the ADM format, or a folder of PNG files.
        reference_name: What they are compared with: an npz (of the ADM release or any other with images under
            `arr_0`), an evaluator of params.yaml, or a prepared dataset, whose statistics are made if need be.
        output: JSON file to write, beside the samples if not given.
        evaluators: Those of params.yaml.
        inception: Weights of Inception; torch-fidelity's cache is looked up if not given. Not with an evaluator.
        num_samples: How many samples there have to be.

    Returns:
        output: The file.
        metrics: Its content.

    Raises:
        ValueError: There is no such reference, files do not fit each other, or the output's name is not that of JSON.
        OSError: The output cannot be written, which is found before anything is computed.
    """
    if output is None and not samples.name:
        raise ValueError(f"--samples '{samples}': has no name to call the metrics by; give --output, or another folder")
    output = output or samples.with_name(f"{samples.stem if samples.is_file() else samples.name}.metrics.json")
    check_writable(output)
    if output.suffix != ".json":  # metrics in the place of the samples or of params.yaml would cost those
        raise ValueError(f"--output {output}: expected a name that ends in .json")
    settings: dict[str, Any] = {"num_samples": num_samples}
    if Path(reference_name).is_file():
        path, extractor = Path(reference_name), open_extractor("inception", inception)
    elif reference_name in evaluators:
        if inception is not None:
            raise ValueError(f"the evaluator '{reference_name}' has its own feature network; leave --inception out")
        path, evaluation = reference(reference_name), evaluators[reference_name]
        if not path.is_file():
            raise ValueError(f"{path} is missing; make it with `dip reference {reference_name}`")
        extractor = _extractor(reference_name, evaluation)
        settings |= {"k": evaluation.neighbours, "is_chunk_size": evaluation.inception_score_chunk}
        settings |= _name_of_file(evaluation)
    elif Store.of(reference_name).manifest.is_file():
        extractor = open_extractor("inception", inception)
        path = _dataset_reference(reference_name, extractor, samples, num_samples)
    else:
        raise ValueError(
            f"reference '{reference_name}': it is no npz file, no evaluator of params.yaml "
            f"({', '.join(evaluators) or 'there are none'}) and no prepared dataset"
        )
    metrics = evaluate(samples, path, extractor, **settings, device=pick_device(), progress=True)
    write_json(output, metrics)
    return output, metrics


def _dataset_reference(dataset: str, extractor: Extractor, samples: Path, num_samples: int) -> Path:
    """The reference file of a prepared dataset for one feature network and one preparation; made if it is missing.

    That takes all images of the dataset, so it is made for samples alone that can be compared with them.
    """
    store = Store.of(dataset)
    digest = hashlib.sha256(extractor.sha256.encode() + store.manifest.read_bytes()).hexdigest()
    path = reference(f"{dataset}-{digest[:12]}")
    if not path.is_file():
        images = ImageStore(store).images
        check_pair(open_images(samples)[0], images, samples, store.folder, num_samples)
        title = f"all {len(images)} images of {dataset}"
        write_reference(path, images, extractor, name=title, device=pick_device(), progress=True)
    return path


def _name_of_file(evaluation: Evaluation) -> dict[str, Any]:
    """What the copy of a reference file in data/ was called, which it has lost, and its checksum in params.yaml."""
    settings = evaluation.reference
    if not isinstance(settings, FileReference):
        return {}
    path = os.path.expandvars(settings.path or "$")
    return {"reference_name": None if "$" in path else Path(path).name, "reference_sha256": settings.sha256}


def _extractor(name: str, evaluation: Evaluation) -> Extractor:
    if isinstance(evaluation.extractor, PhotoExtractor):
        return open_extractor("photo", feature_network(name))
    weights, key = evaluation.extractor.weights, f"evaluation.{name}.extractor.weights"
    return open_extractor("inception", given_path(weights, key, "the weights of Inception") if weights else None)


def _reference_file(name: str, settings: FileReference) -> Path:
    key = f"evaluation.{name}.reference.path"
    if settings.path is None:
        raise ValueError(f"params.yaml: {key} is not set; give it the reference file of the ADM release")
    path = given_path(settings.path, key, "the reference file of the ADM release (VIRTUAL_*.npz)")
    if not path.is_file():
        raise ValueError(f"params.yaml: {key}: there is no file '{path}'")
    if settings.sha256 is not None and (found := sha256(path)) != settings.sha256:
        raise ValueError(f"{path}: its SHA-256 is {found}, expected {settings.sha256}: another file, or a damaged one")
    return path
