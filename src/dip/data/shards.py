"""Writing a store's shards: `.npy` files of about 1 GB, decoded by several processes, each written once.

A shard's name holds a checksum of what it is made from (settings, names and sizes of the files), and the record
beside it (`.json`) what came out. So a preparation that was killed goes on with the shards that are missing, one with
other settings writes other files, and nothing that a manifest names is ever overwritten, unless it is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from dip.data.decode import UnreadableImageError, decode
from dip.data.manifest import FORMAT, Shard, Skipped
from dip.data.source import Part, Source
from dip.files import atomic_write, sha256, write_json, write_npy
from dip.paths import Store
from dip.schema import ImageFiles, ImageNet, Schema

SHARD_BYTES = 2**30
_SMALLEST_SHARD_BYTES = 2**25  # a small dataset is cut finer, so that every core has work
_FINEST_CUT = 64


class Record(Schema):
    """What became of a shard's images."""

    shard: Shard
    skipped: tuple[tuple[int, Skipped], ...]  # place among the images of the shard's task, and what could not be read


@dataclass(frozen=True)
class Task:
    """One shard to write.

    Attributes:
        number: Which shard.
        store: Where it goes.
        part: The images.
        image_size: Side of the crops in pixels.
        upright: Turn images by their orientation tag.
    """

    number: int
    store: Store
    part: Part
    image_size: int
    upright: bool


def images_per_shard(num_images: int, image_size: int) -> int:
    """Images in every shard but the last; a function of the data alone, so that every machine cuts alike."""
    image_bytes = 3 * image_size**2
    aim = num_images * image_bytes // _FINEST_CUT
    return max(1, min(max(aim, _SMALLEST_SHARD_BYTES), SHARD_BYTES) // image_bytes)


def tasks(dataset: ImageFiles, source: Source, store: Store) -> Iterator[Task]:
    """The shards of a dataset, in order."""
    num_images = len(source.labels)
    size = images_per_shard(num_images, dataset.image_size)
    upright = not isinstance(dataset, ImageNet)
    for number, start in enumerate(range(0, num_images, size)):
        part = source.part(start, min(start + size, num_images))
        yield Task(number, store, part, dataset.image_size, upright)


def write_shard(task: Task, advance: Callable[[int], None]) -> Record:
    """Decode and write a shard, unless it is there already.

    Args:
        task: What to write.
        advance: Called with the number of images done since the last call.

    Raises:
        OSError: A source file cannot be read, or the shard cannot be written.
        ValueError: The source has changed since it was listed.
    """
    lines = task.part.describe()
    settings = {"format": FORMAT, "size": task.image_size, "upright": task.upright, "pillow": PIL.__version__}
    content = "\n".join([json.dumps(settings, sort_keys=True), *lines])
    path = task.store.shard(task.number, hashlib.sha256(content.encode()).hexdigest())
    record = _earlier(path, task)
    if record is None:
        record = _decode_to(path, task, advance)
        write_json(path.with_suffix(".json"), record.model_dump(mode="json"))
    else:
        advance(len(lines))
    return record


def write_array(store: Store, number: int, images: NDArray[np.uint8]) -> Shard:
    """Write images that are in memory as a shard.

    Args:
        store: Where it goes.
        number: Which shard.
        images: uint8, shape (n, image_size, image_size, 3).
    """
    path = store.shard(number, hashlib.sha256(images.tobytes()).hexdigest())
    write_npy(path, images)
    return Shard(file=path.name, images=len(images), sha256=sha256(path))


def _decode_to(path: Path, task: Task, advance: Callable[[int], None]) -> Record:
    names = task.part.names
    skipped: list[tuple[int, Skipped]] = []
    # Ordinary writes, not a mapping: a full disk is then an error and not a SIGBUS.
    with atomic_write(path, "wb") as file:
        file.write(_header(len(names), task.image_size))
        for row, content in enumerate(task.part.read()):
            try:
                file.write(decode(content, task.image_size, upright=task.upright).tobytes())
            except UnreadableImageError as error:
                skipped.append((row, Skipped(name=names[row], why=str(error))))
            advance(1)
        if skipped:
            file.seek(0)
            file.write(_header(len(names) - len(skipped), task.image_size))
    shard = Shard(file=path.name, images=len(names) - len(skipped), sha256=sha256(path))
    return Record(shard=shard, skipped=tuple(skipped))


def _earlier(path: Path, task: Task) -> Record | None:
    """The record of a shard that an earlier call finished.

    Its size tells whether it is whole. Where a store was finished before it may have been damaged since, and its
    checksum is compared; those of an interrupted preparation are new, and to read them would only take time. Those
    have no manifest yet, and are written again where a file that could not be read has been mended.
    """
    try:
        record = Record.parse(path.with_suffix(".json").read_text())
        num_images = record.shard.images
        num_bytes = len(_header(num_images, task.image_size)) + num_images * 3 * task.image_size**2
        if path.stat().st_size != num_bytes:
            return None
        changed = sha256(path) != record.shard.sha256 if _was_finished(task.store) else _is_mended(task, record)
        return None if changed else record
    except (OSError, ValueError):
        return None


def _is_mended(task: Task, record: Record) -> bool:
    """Whether a file that could not be read can be read now; its size is often that of the damaged one."""
    rows = {row for row, _ in record.skipped}
    for row, content in enumerate(task.part.read() if rows else ()):
        if row in rows:
            with contextlib.suppress(UnreadableImageError):
                decode(content, task.image_size, upright=task.upright)
                return True
    return False


def _was_finished(store: Store) -> bool:
    """Whether anything is there that is written after all shards: the manifest, which Snakemake deletes, or others."""
    return any(any(store.folder.glob(pattern)) for pattern in (store.manifest.name, "labels-*.npy", "index-*.csv"))


def _header(num_images: int, image_size: int) -> bytes:
    """The header of a .npy file; NumPy pads it, so that its length does not depend on the number of images."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, image_size, image_size, 3)}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()
