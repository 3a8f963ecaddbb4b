"""Reading a store: memory-mapped images, alone or as the batches of a training.

B batch, C channels, H x W image.
"""

from __future__ import annotations

import contextlib
import mmap
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dip.data.manifest import Manifest, Shard, read_manifest
from dip.data.order import TrainingOrder
from dip.files import sha256
from dip.paths import Store
from dip.random import Stream, uniform
from dip.schema import Dataset


class ShardedImages:
    """Images in several arrays, indexed along their first axis like the one array that they make up.

    Args:
        shards: uint8, shape (n, H, W, C) each; in memory, or mapped by `np.load`.
    """

    def __init__(self, shards: Sequence[NDArray[np.uint8]]) -> None:
        self._files: list[Any] = [(s.base, s.offset) if isinstance(s, np.memmap) else None for s in shards]
        self._shards = [np.asarray(shard) for shard in shards]  # plain views: np.memmap is slow to index
        self._starts = np.cumsum([0, *map(len, shards)])
        self._numbers = np.arange(self._starts[-1])
        self.shape = (len(self), *shards[0].shape[1:])
        self.dtype, self.ndim = shards[0].dtype, len(self.shape)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, chosen: Any) -> NDArray[np.uint8]:
        """A copy of some images: `chosen` is an index, a slice or an array of indices."""
        indices = self._numbers[chosen]
        images = np.empty((indices.size, *self.shape[1:]), np.uint8)
        self.read(indices.reshape(-1), images)
        return images if indices.ndim else images[0]

    def read(self, indices: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
        """Copy images to `images`, uint8 of shape (len(indices), H, W, C)."""
        shards = np.searchsorted(self._starts, indices, side="right") - 1
        rows = indices - self._starts[shards]
        places = list(zip(shards.tolist(), rows.tolist(), strict=True))
        for shard, row in places:
            self._announce(shard, row)
        for image, (shard, row) in zip(images, places, strict=True):
            image[...] = self._shards[shard][row]

    def _announce(self, shard: int, row: int) -> None:
        """Tell the kernel what is read next: from a disk, a batch at once is five times as fast as image by image."""
        if (file := self._files[shard]) is not None:
            mapping, offset = file
            size = self._shards[shard][0].nbytes
            start = offset + row * size
            page = start - start % mmap.PAGESIZE
            mapping.madvise(mmap.MADV_WILLNEED, page, start + size - page)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All images; one shard is not copied, several are read into memory."""
        images = self._shards[0] if len(self._shards) == 1 else self[:]
        return np.array(images, dtype, copy=copy)


class ImageStore:
    """Images and labels of a prepared dataset.

    Args:
        store: Where it lies.
        expected: The settings that it must have been prepared with, any if not given.

    Raises:
        ValueError: The store is missing, incomplete, does not hold what its manifest says, or has other settings.
    """

    images: ShardedImages
    labels: NDArray[np.int64]  # (N,)

    def __init__(self, store: Store, expected: Dataset | None = None) -> None:
        manifest = read_manifest(store)
        if expected is not None and manifest.settings.canonical() != expected.canonical():
            raise ValueError(f"{store.folder}: {other_settings(expected, manifest)}")
        self.class_names = list(manifest.class_names)
        _allow_open_files(len(manifest.shards))
        try:
            self.images = ShardedImages([_open(store.folder, shard) for shard in manifest.shards])
            labels = store.folder / manifest.labels.file
            if sha256(labels) != manifest.labels.sha256:  # a label that is none ends deep in a training, if it ends
                raise ValueError(f"{labels}: its SHA-256 is not the one in manifest.json")
            self.labels = np.load(labels)
            if len(self.images) != len(self.labels):
                raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels")
        except Exception as error:  # NumPy's parser raises anything over damaged bytes
            raise ValueError(
                f"{store.folder}: no usable dataset ({error}); prepare it again with `dip prepare {manifest.name}`"
            ) from None

    def __len__(self) -> int:
        return len(self.images)


def other_settings(expected: Dataset, manifest: Manifest) -> str:
    """What differs between the settings of a store and those of params.yaml."""
    found, wanted = (settings.model_dump(mode="json") for settings in (manifest.settings, expected))
    differ = [f"{key} = {found.get(key)}, params.yaml says {wanted.get(key)}"
              for key in sorted({*found, *wanted}) if found.get(key) != wanted.get(key)]  # fmt: skip
    return f"it was prepared with {'; '.join(differ)}: prepare it again with `dip prepare {manifest.name}`"


def _open(folder: Path, shard: Shard) -> NDArray[np.uint8]:
    path = folder / shard.file
    images: NDArray[np.uint8] = np.lib.format.open_memmap(path, mode="r")  # np.load would advise to open a pickle
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != shard.images:
        raise ValueError(
            f"{path}: expected {shard.images} images, uint8 (N, H, W, 3), got {images.dtype} {images.shape}"
        )
    return images


def _allow_open_files(number: int) -> None:
    """Raise the soft limit: a mapping keeps its file open, and ImageNet at 512 pixels has about 1,000 shards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + 512
    if resource.RLIM_INFINITY != soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))


def load_batch(
    store: ImageStore,
    order: TrainingOrder,
    step: int,
    *,
    flip: bool,
    device: torch.device,
    part: range | None = None,
) -> tuple[Tensor, Tensor]:
    """The batch of a step, or a part of it.

    Args:
        store: Images and labels.
        order: Which image is at which place of the batch.
        step: Training step, counted from 0.
        flip: Flip images horizontally with probability 1/2, by (seed, step, place in the global batch).
        device: Where the images go.
        part: Places in the global batch, all of them if not given.

    Returns:
        x_1: float32 in [-1, 1], shape (B, C, H, W), B the length of the part.
        y: int64 labels, shape (B,).
    """
    places = np.asarray(range(order.batch_size) if part is None else part)
    indices = order.indices(step)[places]
    shape = (len(indices), *store.images.shape[1:])
    pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    store.images.read(indices, pixels.numpy())
    pixels = pixels.to(device, non_blocking=True)  # (B, H, W, C) uint8
    if flip:
        flipped = uniform(order.seed, Stream.FLIP, step, places) < 0.5
        chosen = torch.from_numpy(flipped).to(device)[:, None, None, None]
        pixels = torch.where(chosen, pixels.flip(2), pixels)
    x_1 = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # (B, C, H, W)
    return x_1, torch.from_numpy(store.labels[indices]).to(device)
