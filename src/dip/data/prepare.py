"""`dip prepare`: from a dataset's source to its store, `images.npy`, `labels.npy` and `manifest.json`."""

from __future__ import annotations

import numpy as np
from numpy.lib.format import open_memmap

from dip.data.imagenet import find_images, write_crops
from dip.data.photographs import training_crops
from dip.files import atomic_write, sha256, write_json
from dip.paths import Store
from dip.schema import Dataset, Photographs


def prepare(name: str, dataset: Dataset, store: Store) -> None:
    """Write the store; the manifest comes last, and a store without one does not count.

    Args:
        name: Name of the dataset in params.yaml.
        dataset: Its settings.
        store: Where it goes.

    Raises:
        ValueError: The source is missing or unreadable; what to change is named.
    """
    if isinstance(dataset, Photographs):
        images, labels = training_crops(dataset)
        class_names = list(dataset.photographs)
        store.manifest.unlink(missing_ok=True)  # an earlier one would speak of other images
        with atomic_write(store.images, "wb") as file:
            np.save(file, images)
    else:
        files, labels, class_names = find_images(name, dataset)
        partial = store.images.with_suffix(".partial.npy")
        partial.parent.mkdir(parents=True, exist_ok=True)
        shape = (len(files), dataset.image_size, dataset.image_size, 3)
        array = open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        write_crops(files, dataset.image_size, array)
        array.flush()
        store.manifest.unlink(missing_ok=True)
        partial.replace(store.images)
    with atomic_write(store.labels, "wb") as file:
        np.save(file, labels)
    manifest = {
        "name": name,
        "settings": dataset.model_dump(mode="json"),
        "class_names": class_names,
        "images_per_class": np.bincount(labels, minlength=len(class_names)).tolist(),
        "sha256": {path.name: sha256(path) for path in (store.images, store.labels)},
    }
    write_json(store.manifest, manifest)
