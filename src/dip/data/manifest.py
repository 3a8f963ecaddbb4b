"""The manifest of a store: which files make it up, and what they hold. A store is what its manifest names."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dip.files import atomic_write, sha256, write_json, write_npy
from dip.paths import Store
from dip.schema import Dataset, Schema

FORMAT: Literal[1] = 1  # of stores; raise it when older ones cannot be read any more


class StoreFile(Schema):
    """A file of a store."""

    file: Annotated[str, Field(pattern=r"^[\w-]+\.\w+$")]  # beside the manifest
    sha256: str


class Shard(StoreFile):
    """Consecutive images: uint8 of shape (images, image_size, image_size, 3)."""

    images: Annotated[int, Field(ge=0)]


class Skipped(Schema):
    """A file that could not be read."""

    name: str
    why: str


class SourceOfStore(Schema):
    """What a store was made from."""

    layout: str  # photographs, folder, tar or parquet
    images: int  # in it, also those that could not be read
    classes: tuple[str, ...]  # as the source names them: ImageNet's synsets


class Manifest(Schema):
    """manifest.json."""

    format: Literal[1] = FORMAT
    name: str
    settings: Dataset
    source: SourceOfStore
    class_names: tuple[str, ...]
    images_per_class: tuple[int, ...]
    shards: tuple[Shard, ...]
    labels: StoreFile  # .npy, int64 of shape (num_images,)
    index: StoreFile  # .csv: file, row, label and origin of every image
    skipped: tuple[Skipped, ...] = ()
    pillow: str | None = None  # version that decoded the images

    @property
    def num_images(self) -> int:
        return sum(shard.images for shard in self.shards)

    @property
    def files(self) -> tuple[StoreFile, ...]:
        """All files of the store but the manifest."""
        return (*self.shards, self.labels, self.index)


def read_manifest(store: Store) -> Manifest:
    """The manifest of a store.

    Raises:
        ValueError: There is none, or it is damaged or of another version.
    """
    try:
        return Manifest.parse(store.manifest.read_text())
    except OSError as error:
        reason = str(error)
    except ValueError as error:
        reason = f"manifest.json is damaged or of another version of DiP: {error}"
    raise ValueError(
        f"{store.folder}: no usable dataset ({reason}); prepare it again with `dip prepare {store.folder.name}`"
    )


def publish(
    name: str,
    settings: Dataset,
    store: Store,
    source: SourceOfStore,
    shards: Sequence[Shard],
    labels: NDArray[np.int64],
    origins: Iterable[str],
    *,
    class_names: Sequence[str],
    skipped: Sequence[Skipped] = (),
    pillow: str | None = None,
) -> None:
    """Write labels, index and then the manifest, which makes the shards a store; remove files of earlier ones.

    Args:
        name: Name of the dataset in params.yaml.
        settings: Its settings.
        store: Where it lies.
        source: What it was made from.
        shards: Its shards, which are there.
        labels: Label of every image, shape (num_images,).
        origins: What each image comes from.
        class_names: Name of every class.
        skipped: Files that could not be read.
        pillow: Version that decoded the images.
    """
    # Other content goes to other files, so that an earlier manifest stays true until it is replaced.
    state = hashlib.sha256(labels.tobytes())
    state.update("\n".join(f"{shard.file} {shard.sha256}" for shard in shards).encode())
    labels_path, index_path = store.labels(state.hexdigest()), store.index(state.hexdigest())
    write_npy(labels_path, labels)
    with atomic_write(index_path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "row", "label", "origin"))
        places = ((shard.file, row) for shard in shards for row in range(shard.images))
        for (shard_file, row), label, origin in zip(places, labels.tolist(), origins, strict=True):
            writer.writerow((shard_file, row, label, origin))
    manifest = Manifest(
        name=name,
        settings=settings,
        source=source,
        class_names=tuple(class_names),
        images_per_class=tuple(np.bincount(labels, minlength=len(class_names)).tolist()),
        shards=tuple(shard for shard in shards if shard.images),
        labels=StoreFile(file=labels_path.name, sha256=sha256(labels_path)),
        index=StoreFile(file=index_path.name, sha256=sha256(index_path)),
        skipped=tuple(skipped),
        pillow=pillow,
    )
    write_json(store.manifest, manifest.model_dump(mode="json"))
    _clean(store, {shard.file for shard in shards} | {labels_path.name, index_path.name})


def _clean(store: Store, keep: set[str]) -> None:
    """Remove shards, labels and indices of earlier preparations; whoever still reads them has them open."""
    for pattern in ("images-*.npy", "images-*.json", "labels-*.npy", "index-*.csv", "skipped.json"):
        for path in store.folder.glob(pattern):
            if path.name not in keep and path.with_suffix(".npy").name not in keep:
                path.unlink(missing_ok=True)
