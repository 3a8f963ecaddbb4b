"""Shards: the samples in files of their own, made by any process in any order and merged into one npz.

A shard is written once, under its final name, so what is there is whole. A process holds a shard by a lock that goes
with it, however it ends. Where locks do not reach other machines, two may make the same shard: the same bytes, twice.

S samples of a shard, H x W image.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dip.evaluation.npz import Blocks, load_images, load_metadata, write_npz


@dataclass(frozen=True)
class Shards:
    """The shards of one set of samples.

    Attributes:
        folder: Where they lie.
        num_samples: Samples in all.
        size: Samples of a shard; the last may have fewer.
        image_size: H and W.
    """

    folder: Path
    num_samples: int
    size: int
    image_size: int

    def __len__(self) -> int:
        return -(-self.num_samples // self.size)

    def samples(self, shard: int) -> range:
        """Which samples a shard holds."""
        return range(shard * self.size, min((shard + 1) * self.size, self.num_samples))

    def missing(self) -> list[int]:
        """Shards that are not made."""
        return [shard for shard in range(len(self)) if not self._path(shard).exists()]

    def num_made(self) -> int:
        """Samples in the shards that are made."""
        return self.num_samples - sum(len(self.samples(shard)) for shard in self.missing())

    def image(self, sample: int) -> NDArray[np.uint8]:
        """One sample, uint8 of shape (H, W, 3)."""
        return self._images(sample // self.size)[sample % self.size]

    @contextlib.contextmanager
    def claim(self, first: int) -> Iterator[int | None]:
        """Hold the next shard that is neither made nor held, from `first` on and around; None where there is none."""
        for shard in sorted(self.missing(), key=lambda shard: (shard - first) % len(self)):
            with self.hold(f"{shard:06d}", wait=False) as held:
                if held and not self._path(shard).exists():  # it may have been made a moment ago
                    yield shard
                    return
        yield None

    def write(self, shard: int, images: NDArray[np.uint8], device: str) -> None:
        """Write the images of a shard, uint8 of shape (S, H, W, 3), and the device that they were made on."""
        write_npz(self._path(shard), {"arr_0": images, "metadata": np.array(json.dumps({"device": device}))})

    def merge(self, path: Path, labels: NDArray[np.int64]) -> None:
        """Write all samples as one npz in the ADM format, a shard at a time: `arr_0` and `labels`.

        Raises:
            ValueError: A shard is damaged; it is removed, so that the next call makes it again.
            OSError: No room, for example; the shards stay.
        """
        shape = (self.num_samples, self.image_size, self.image_size, 3)
        images = Blocks(shape, np.dtype(np.uint8), (self._images(shard) for shard in range(len(self))))
        write_npz(path, {"arr_0": images, "labels": labels})

    def devices(self) -> list[str]:
        """What the samples were made on; more than one where jobs ran on different machines. Errors as in `merge`."""
        found = set()
        for shard in range(len(self)):
            with self._removed_if_damaged(shard) as path:
                if not isinstance(device := load_metadata(path).get("device"), str):
                    raise ValueError("its metadata names no device")
                found.add(device)
        return sorted(found)

    @contextlib.contextmanager
    def hold(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock of this folder; False where another process holds it, if not waited for, or has merged it."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context((self.folder / f"{name}.lock").open("w"))
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                held = True
            except (BlockingIOError, FileNotFoundError):
                held = False
            yield held

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.npz"

    def _images(self, shard: int) -> NDArray[np.uint8]:
        expected = (len(self.samples(shard)), self.image_size, self.image_size, 3)
        with self._removed_if_damaged(shard) as path:
            images = load_images(path)
            if images.shape != expected:
                raise ValueError(f"its images have shape {images.shape}, expected {expected}")
        return images

    @contextlib.contextmanager
    def _removed_if_damaged(self, shard: int) -> Iterator[Path]:
        """The file of a shard, to be read inside; a ValueError there says that it is damaged."""
        path = self._path(shard)
        try:
            yield path
        except ValueError as error:
            path.unlink()
            raise ValueError(f"a damaged shard, now removed ({error}); run the same command again") from None
