"""The evaluation protocol: FID, sFID, Inception score, precision and recall of one sample file.

Shapes: n = number of images, H/W = image, d = dimension of a feature.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dip.environment import describe_environment, device_name
from dip.evaluation.features import Extractor, Features, ImageSet, check_images, extract, iterate_features
from dip.evaluation.frechet import RunningStatistics, Statistics, frechet_distance
from dip.evaluation.images import open_images, source_deviations
from dip.evaluation.inception_score import inception_score
from dip.evaluation.manifold import check_neighbours, precision_recall
from dip.evaluation.npz import Reference, load_reference, write_npz
from dip.evaluation.patch_grid import patch_grid
from dip.files import sha256

_log = logging.getLogger(__name__)
PROTOCOL_NUM_SAMPLES = 50_000  # paper, Section 4.1, and the ADM suite
PROTOCOL_NEIGHBOURS = 3
PROTOCOL_CHUNK = 5000
MANIFOLD_IMAGES = 10_000  # images in the reference files of the ADM release
ADM_REFERENCES = {  # their SHA-256, where it is known
    "VIRTUAL_imagenet256_labeled.npz": "b32732719497e42660a9affb4a966068cba0855ac449b82015e34ec376d20758",
    "VIRTUAL_imagenet512.npz": None,
}


def evaluate(
    samples_path: str | Path,
    reference_path: str | Path,
    extractor: Extractor,
    *,
    num_samples: int = PROTOCOL_NUM_SAMPLES,
    k: int = PROTOCOL_NEIGHBOURS,
    is_chunk_size: int = PROTOCOL_CHUNK,
    reference_name: str | None = None,
    reference_sha256: str | None = None,
    patch_size: int | None = None,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Metrics of samples against a reference file.

    Args:
        samples_path: ADM-format npz, uint8 (n, H, W, 3), in the order it was sampled in; or a folder of PNG files.
        reference_path: Reference npz of the same resolution: `VIRTUAL_*.npz` of the ADM release or one of
            `write_reference`. From one with images only, statistics are computed from those images.
        extractor: From `dip.evaluation.features.open_extractor`.
        num_samples: How many images the sample file has to hold.
        k: Neighbours of precision and recall.
        is_chunk_size: Images per chunk of the Inception score.
        reference_name: How to name the reference; by default the name in it, or that of the ADM release's file it
            is. Without any of these the name of the file stands in.
        reference_sha256: The checksum that params.yaml gives to the reference. It vouches for a file of the ADM
            release whose checksum is not known here.
        patch_size: Patch of the model that drew the samples, if it is known.
        batch_size: Images per step of the feature network.
        device: Where features and neighbour distances are computed.
        progress: Whether to show a bar.

    Returns:
        Metrics, and what they were obtained with, ready for JSON. `full_protocol` is true only for 50,000 samples
        under Inception with verified weights, a reference file of the ADM release and the suite's own settings;
        `deviations` says what is missing.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: Another number of samples or another resolution than asked for, a file that is not what it
            should be, a reference of another feature extractor, or features that are not finite.
    """
    images, checksum_of_images = open_images(samples_path)
    for deviation in source_deviations(images):
        _log.warning("%s: %s", samples_path, deviation)
    reference = load_reference(reference_path)
    check_pair(images, reference.images, samples_path, reference_path, num_samples)
    check_neighbours(k, **{f"reference {reference_path}": len(reference.images), f"sample {samples_path}": len(images)})
    _check_extractor(reference, extractor, reference_path)
    _check_dimensions(reference, extract(extractor, reference.images[:1], device=device), extractor, reference_path)
    sample = extract(extractor, images, batch_size, device, progress)
    real = extract(extractor, reference.images, batch_size, device, progress)
    pool, spatial = reference.pool, reference.spatial
    if pool is None or spatial is None:
        pool, spatial = Statistics.from_features(real.pool), Statistics.from_features(real.spatial)
    precision, recall = precision_recall(real.pool, sample.pool, k, device=device)
    checksums = {
        "samples": checksum_of_images(),
        "reference": sha256(reference_path),
        "extractor": extractor.sha256,
    }
    name = _reference_name(reference, reference_name, Path(reference_path).name, checksums["reference"])
    deviations = [
        *_setting_deviations(extractor, len(images), k, is_chunk_size),
        *source_deviations(images),
        *_reference_deviations(reference, name, checksums["reference"], reference_sha256),
    ]
    return {
        "fid": frechet_distance(pool, sample.pool),
        "sfid": frechet_distance(spatial, sample.spatial),
        "inception_score": inception_score(sample.probabilities, is_chunk_size),
        "precision": precision,
        "recall": recall,
        "patch_grid": patch_grid(images, reference.images, patch_size) if patch_size is not None else None,
        "num_samples": len(images),
        "protocol_num_samples": PROTOCOL_NUM_SAMPLES,
        "full_protocol": not deviations,
        "deviations": deviations,
        "feature_extractor": extractor.name,
        "samples": Path(samples_path).name,
        "reference": name or Path(reference_path).name,
        "sha256": checksums,
        "settings": {
            "k": k,
            "is_chunk_size": is_chunk_size,
            "image_size": images.shape[1],
            "reference_images": len(reference.images),
            "reference_statistics_images": pool.num_samples,
            "feature_dtype": "float32",
            "distance_dtype": "float32",
            "statistics_dtype": "float64",
            "batch_size": batch_size,
        },
        "device": device_name(torch.device(device)),
        "versions": describe_environment(),
    }


def write_reference(
    path: str | Path,
    images: ImageSet,
    extractor: Extractor,
    *,
    name: str,
    manifold_images: NDArray[np.uint8] | None = None,
    num_manifold_images: int = MANIFOLD_IMAGES,
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Write a reference file in the ADM layout, atomically; the original evaluator reads it too.

    Statistics are streamed over all images, so only images of `manifold_images` are ever held at once.

    Args:
        path: npz to write.
        images: uint8, shape (n, H, W, 3); `mu`, `sigma`, `mu_s`, `sigma_s` are theirs.
        extractor: From `dip.evaluation.features.open_extractor`.
        name: How metrics name this reference.
        manifold_images: Images for precision and recall; by default `num_manifold_images` of `images`, evenly
            spread over them.
        num_manifold_images: See above; all are taken where there are fewer.
        batch_size: Images per step of the feature network.
        device: Where features are computed.
        progress: Whether to show a bar.

    Raises:
        ValueError: Images of another type or shape than the extractor takes, fewer than 2, or features that are
            not finite.
        OSError: The file cannot be written; an earlier one is left as it was.
    """
    check_images(images, extractor.image_size)
    if manifold_images is None:
        count = min(num_manifold_images, len(images))
        manifold_images = images[np.arange(count) * len(images) // count]
    check_images(manifold_images, extractor.image_size, where="manifold_images")
    running: tuple[RunningStatistics, RunningStatistics] | None = None
    for batch in iterate_features(extractor, images, batch_size, device, progress):
        if running is None:
            running = RunningStatistics(batch.pool.shape[1]), RunningStatistics(batch.spatial.shape[1])
        running[0].update(batch.pool)
        running[1].update(batch.spatial)
    assert running is not None  # check_images refuses an empty set
    pool, spatial = running[0].result(), running[1].result()
    metadata = {
        "name": name,
        "num_images": len(images),
        "feature_extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "packages": describe_environment()["packages"],
    }
    arrays: dict[str, NDArray] = {
        "arr_0": manifold_images,
        "mu": pool.mean,
        "sigma": pool.covariance,
        "mu_s": spatial.mean,
        "sigma_s": spatial.covariance,
        "metadata": np.array(json.dumps(metadata, sort_keys=True)),
    }
    write_npz(path, arrays)


def check_pair(
    images: ImageSet, real: ImageSet, samples_path: str | Path, reference_path: str | Path, num_samples: int
) -> None:
    """Whether samples are as many as they have to be, and of the size of real images.

    Raises:
        ValueError: Another number or another resolution.
    """
    if len(images) != num_samples:
        raise ValueError(
            f"{samples_path}: expected {num_samples} samples, found {len(images)}: FID depends on their number; "
            f"sample the missing ones, or give --samples, --reference and `--num-samples {len(images)}` to `dip "
            "evaluate`, and the result will say so"
        )
    if images.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"samples and reference differ in resolution: {images.shape[1]} x {images.shape[2]} in {samples_path}, "
            f"{real.shape[1]} x {real.shape[2]} in {reference_path}"
        )


def _check_dimensions(reference: Reference, features: Features, extractor: Extractor, path: str | Path) -> None:
    """Whether a reference's statistics are of such features, here those of one image."""
    for statistics, of_one in ((reference.pool, features.pool), (reference.spatial, features.spatial)):
        if statistics is not None and len(statistics.mean) != of_one.shape[1]:
            raise ValueError(
                f"{path}: its statistics have dimension {len(statistics.mean)}, but {extractor.name} gives "
                f"{of_one.shape[1]}: the reference was written with another feature extractor"
            )


def _check_extractor(reference: Reference, extractor: Extractor, path: str | Path) -> None:
    written_with = reference.metadata.extractor_sha256 or extractor.sha256
    if written_with != extractor.sha256:
        raise ValueError(
            f"{path}: its statistics were computed with {reference.metadata.feature_extractor} "
            f"({written_with[:8]}), not with {extractor.name} ({extractor.sha256[:8]}): write the reference again"
        )


def _setting_deviations(extractor: Extractor, num_samples: int, k: int, is_chunk_size: int) -> list[str]:
    """What in the settings keeps a result from being one of the full protocol, in words."""
    found = []
    if not extractor.verified:
        found.append(f"features of {extractor.name} instead of InceptionV3 with the ADM suite's weights")
    if num_samples != PROTOCOL_NUM_SAMPLES:
        found.append(f"{num_samples:,} samples instead of {PROTOCOL_NUM_SAMPLES:,}")
    if k != PROTOCOL_NEIGHBOURS:
        found.append(f"k = {k} instead of {PROTOCOL_NEIGHBOURS}")
    if is_chunk_size != PROTOCOL_CHUNK:
        found.append(f"Inception Score in chunks of {is_chunk_size:,} instead of {PROTOCOL_CHUNK:,}")
    return found


def _reference_name(reference: Reference, given: str | None, file_name: str, checksum: str) -> str | None:
    """The ADM release's by checksum, the name given, the one in the file, or the ADM release's by name; or None."""
    by_checksum = [name for name, known in ADM_REFERENCES.items() if known == checksum]
    by_name = [name for name in ADM_REFERENCES if name == file_name]
    return next((name for name in (*by_checksum, given, reference.metadata.name, *by_name) if name), None)


def _reference_deviations(reference: Reference, name: str | None, checksum: str, pinned: str | None) -> list[str]:
    """What in the reference does, in words."""
    found = []
    known = ADM_REFERENCES.get(name) if name is not None else None
    if name is None:
        found.append("a reference of unknown origin")
    elif name not in ADM_REFERENCES:
        found.append(f"the reference '{name}' instead of a file of the ADM release")
    elif known is None and checksum != pinned:
        found.append(
            f"{name} with a SHA-256 that nobody vouches for ({checksum}): compare it with a trusted copy's and give "
            "it as the evaluation's reference.sha256"
        )
    elif known not in (None, checksum):
        found.append(f"a reference without the checksum of the ADM release's {name} (expected {known})")
    if reference.pool is None:
        found.append(f"reference statistics of {len(reference.images):,} images instead of the whole training set")
    if len(reference.images) != MANIFOLD_IMAGES:
        found.append(
            f"precision and recall against {len(reference.images):,} reference images instead of {MANIFOLD_IMAGES:,}"
        )
    return found
