"""`dip verify`: re-check a store against its manifest and params.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dip.data.dataset import ImageStore, other_settings
from dip.data.manifest import Manifest, StoreFile, read_manifest
from dip.files import sha256
from dip.paths import Store
from dip.progress import Progress
from dip.schema import Dataset


def verify(name: str, dataset: Dataset, store: Store, *, num_workers: int = 1) -> Manifest:
    """Read every file of a store and compare.

    Args:
        name: Name of the dataset in params.yaml.
        dataset: Its settings.
        store: Where it lies.
        num_workers: Files at a time.

    Returns:
        The manifest, which is true.

    Raises:
        ValueError: There is no store, or it is not what the manifest or params.yaml say; every difference is named.
    """
    manifest = read_manifest(store)

    def wrong(file: StoreFile) -> str | None:
        path = store.folder / file.file
        try:
            found = sha256(path)
        except OSError as error:
            return f"{path}: {error.strerror}"
        return None if found == file.sha256 else f"{path}: its SHA-256 is {found}, expected {file.sha256}"

    mistakes = []
    with (
        Progress("verify", total=len(manifest.files), unit="file") as progress,
        ThreadPoolExecutor(num_workers) as pool,  # hashing releases the interpreter's lock
    ):
        for mistake in pool.map(wrong, manifest.files):
            progress.advance()
            if mistake is not None:
                mistakes.append(mistake)
    if not mistakes:
        mistakes = list(_differences(dataset, ImageStore(store), manifest))
    if mistakes:
        raise ValueError("\n".join([*mistakes, f"prepare it again with `dip prepare {name}`: what is right stays"]))
    return manifest


def _differences(dataset: Dataset, images: ImageStore, manifest: Manifest) -> Iterator[str]:
    if manifest.settings.canonical() != dataset.canonical():
        yield other_settings(dataset, manifest)
    size, num_classes = dataset.image_size, len(manifest.class_names)
    if images.images.shape[1:] != (size, size, 3):
        yield f"images of shape {images.images.shape[1:]}, expected {(size, size, 3)}"
    counts = np.bincount(images.labels, minlength=num_classes)
    if counts.tolist() != list(manifest.images_per_class):
        yield "the labels are not as many of each class as the manifest says"
