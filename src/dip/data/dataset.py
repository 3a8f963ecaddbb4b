"""Reading a store: memory-mapped images, in an order that depends on (seed, epoch) alone.

B batch, C channels, H x W image.
"""

from __future__ import annotations

import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dip.paths import Store
from dip.random import Stream, uniform


class ImageStore:
    """Images and labels of a prepared dataset.

    Raises:
        ValueError: The store is missing, incomplete or does not hold what its manifest says.
    """

    def __init__(self, store: Store) -> None:
        try:
            self.manifest = json.loads(store.manifest.read_text())
            self.images = np.load(store.images, mmap_mode="r")
            self.labels = np.load(store.labels)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{store.folder}: no usable dataset ({error}); prepare it again with `dip prepare`"
            ) from None
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or len(self.images) != len(self.labels):
            raise ValueError(
                f"{store.folder}: expected uint8 images (N, H, W, 3) and N labels, got {self.images.dtype} "
                f"{self.images.shape} and {self.labels.shape}; prepare it again with `dip prepare`"
            )

    @property
    def class_names(self) -> list[str]:
        return list(self.manifest["class_names"])

    def __len__(self) -> int:
        return len(self.images)


class TrainingOrder:
    """Which image is at which place of which batch: a shuffle per epoch, the incomplete last batch dropped.

    Args:
        num_images: Images in the dataset.
        batch_size: Global batch.
        seed: Seed of the training.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int) -> None:
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.steps_per_epoch = num_images // batch_size
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def indices(self, step: int) -> NDArray[np.int64]:
        """Images of a step (counted from 0), shape (batch_size,)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
            self._epoch = epoch
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]


def load_batch(
    store: ImageStore, order: TrainingOrder, step: int, *, flip: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The batch of a step.

    Returns:
        x_1: float32 in [-1, 1], shape (B, C, H, W), flipped horizontally with probability 1/2 if `flip`.
        y: int64 labels, shape (B,).
    """
    indices = order.indices(step)
    pixels = torch.from_numpy(store.images[indices]).to(device, non_blocking=True)  # (B, H, W, C) uint8
    if flip:
        flipped = uniform(order.seed, Stream.FLIP, step, np.arange(len(indices))) < 0.5
        chosen = torch.from_numpy(flipped).to(device)[:, None, None, None]
        pixels = torch.where(chosen, pixels.flip(2), pixels)
    x_1 = pixels.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)  # (B, C, H, W)
    return x_1, torch.from_numpy(store.labels[indices]).to(device)
