"""The order of a training's images, which depends on (seed, epoch) alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
