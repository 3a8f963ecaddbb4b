"""`dip prepare`: from a dataset's source to its store.

The manifest is written last and replaces an earlier one in one step; until then the earlier store is whole.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence

import numpy as np
import PIL
from numpy.typing import NDArray

from dip.data.lock import locked
from dip.data.manifest import Skipped, SourceOfStore, publish
from dip.data.photographs import training_crops
from dip.data.shards import SHARD_BYTES, Record, images_per_shard, tasks, write_array
from dip.data.source import Source, open_source
from dip.data.synsets import readable_names
from dip.data.workers import write_shards
from dip.files import write_json
from dip.paths import Store
from dip.progress import Progress
from dip.schema import Dataset, ImageFiles, ImageNet, Photographs


def prepare(name: str, dataset: Dataset, store: Store, *, num_workers: int = 1) -> None:
    """Write the store, or go on where an earlier call stopped.

    Args:
        name: Name of the dataset in params.yaml.
        dataset: Its settings.
        store: Where it goes.
        num_workers: Processes that decode; the result does not depend on it.

    Raises:
        ValueError: The source is missing or unreadable, its counts are not those of params.yaml, or too many of its
            images cannot be read; what to change is named.
        OSError: The disk is full, or a file cannot be read or written. Finished shards stay.
    """
    if isinstance(dataset, Photographs):
        images, labels = training_crops(dataset)
        with locked(store.folder):
            write_store(name, dataset, store, images, labels, dataset.photographs)
        return
    source = open_source(name, dataset)
    with locked(store.folder):
        _check_space(store, len(source.labels) * 3 * dataset.image_size**2)
        records = _write(name, dataset, source, store, num_workers)
        size = images_per_shard(len(source.labels), dataset.image_size)
        left_out = [number * size + row for number, record in enumerate(records) for row, _ in record.skipped]
        labels = np.delete(source.labels, left_out)
        skipped = [found for record in records for _, found in record.skipped]
        _check_result(name, dataset, source.classes, labels, skipped)
        publish(
            name,
            dataset,
            store,
            SourceOfStore(layout=source.layout, images=len(source.labels), classes=tuple(source.classes)),
            [record.shard for record in records],
            labels,
            _origins(dataset, source, store, records),
            class_names=readable_names(source.classes) if isinstance(dataset, ImageNet) else source.classes,
            skipped=skipped,
            pillow=PIL.__version__,
        )


def write_store(
    name: str,
    dataset: Dataset,
    store: Store,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    class_names: Sequence[str],
) -> None:
    """Write a store of images that are in memory.

    Args:
        name: Name of the dataset in params.yaml.
        dataset: Its settings.
        store: Where it goes.
        images: uint8, shape (N, image_size, image_size, 3).
        labels: Shape (N,).
        class_names: Name of every class.
    """
    size = max(1, SHARD_BYTES // images[0].nbytes)
    shards = [
        write_array(store, number, images[start : start + size])
        for number, start in enumerate(range(0, len(images), size))
    ]
    source = SourceOfStore(layout=dataset.kind, images=len(images), classes=tuple(class_names))
    origins = (class_names[label] for label in labels)
    publish(name, dataset, store, source, shards, labels, origins, class_names=class_names)


def _check_space(store: Store, needed: int) -> None:
    """Refuse early what cannot fit, as far as that can be said: shards that are there may be of use or not."""
    there = sum(path.stat().st_size for path in store.folder.glob("images-*.npy"))
    free = shutil.disk_usage(store.folder).free
    if needed - there > free:
        raise OSError(
            f"{store.folder}: the store takes {needed / 1e9:,.1f} GB, {there / 1e9:,.1f} GB of shards are there and "
            f"{free / 1e9:,.1f} GB are free; make room, or make data/ a link to a larger disk"
        )


def _write(name: str, dataset: ImageFiles, source: Source, store: Store, num_workers: int) -> list[Record]:
    """Records of all shards in order.

    Raises:
        ValueError: More images cannot be read than `max_skipped` allows.
    """
    num_images = len(source.labels)
    num_shards = -(-num_images // images_per_shard(num_images, dataset.image_size))
    records: dict[int, Record] = {}
    skipped: list[Skipped] = []
    with (
        Progress("prepare", total=num_images, unit="image") as progress,
        contextlib.closing(
            write_shards(tasks(dataset, source, store), min(num_workers, num_shards), progress)
        ) as written,
    ):
        for number, record in written:
            records[number] = record
            skipped += [found for _, found in record.skipped]
            if len(skipped) > dataset.max_skipped * num_images:
                write_json(store.skipped, [found.model_dump() for found in skipped])
                raise ValueError(
                    f"{len(skipped)} of {num_images} images cannot be read, more than datasets.{name}.max_skipped = "
                    f"{dataset.max_skipped:g} allows; the first is {skipped[0].name} ({skipped[0].why}), all so far "
                    f"are in {store.skipped}. Replace or remove them, or raise max_skipped"
                )
    return [records[number] for number in sorted(records)]


def _check_result(
    name: str, dataset: ImageFiles, classes: list[str], labels: NDArray[np.int64], skipped: list[Skipped]
) -> None:
    empty = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(empty):
        raise ValueError(f"datasets.{name}: no image of class '{classes[empty[0]]}' can be read")
    if len(labels) == dataset.num_images:
        return
    key = f"params.yaml: datasets.{name}.num_images is {dataset.num_images}"
    if skipped:
        raise ValueError(
            f"{key}, and {len(labels)} images can be read; {len(skipped)} cannot, the first is {skipped[0].name} "
            f"({skipped[0].why}). Replace them, or write num_images: {len(labels)}, and run again: the rest stays done"
        )
    raise ValueError(f"{key}, and all {len(labels)} images can be read; write num_images: {len(labels)}")


def _origins(dataset: ImageFiles, source: Source, store: Store, records: list[Record]) -> Iterator[str]:
    """Names of the images that could be read, in order."""
    for task, record in zip(tasks(dataset, source, store), records, strict=True):
        missing = {row for row, _ in record.skipped}
        yield from (name for row, name in enumerate(task.part.names) if row not in missing)
