"""tensorboard events: the numbers of the log, and grids of samples whose noise and labels never change.

B batch, C channels, H x W image.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from dip.diffusion.sampler import sample, to_uint8
from dip.precision import autocast
from dip.random import Stream, noise
from dip.schema import Sampling, TrainingSpec
from dip.training.state import TrainingState

_log = logging.getLogger(__name__)
_CLASSES, _PER_CLASS = 4, 8
# ASSUMPTION: 25 steps without guidance show what the model has learned at a small part of the cost of real samples.
_SAMPLING = Sampling(num_steps=25)


class Events:
    """Writes events of a training, which never fails for want of them.

    Where tensorboard is not installed, or the disk does not take the events, it says so once and writes none.

    Args:
        folder: Where the event files go.
        step: Events after this step, which a call wrote that was interrupted, are hidden.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            _log.info("tensorboard is not installed here: no events are written")
        else:
            with self._or_none():
                self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def line(self, line: dict[str, Any]) -> None:
        """The numbers of a line of the training log, each a curve over the steps."""
        with self._or_none():
            for name, value in line.items():
                if self._writer is not None and name != "step" and isinstance(value, int | float):
                    self._writer.add_scalar(name, value, line["step"])

    def samples(self, state: TrainingState, spec: TrainingSpec, class_names: list[str]) -> None:
        """A labelled grid of samples with the averaged weights."""
        if self._writer is None:
            return
        from dip.sampling.generate import sample_grid

        labels = np.repeat(np.arange(min(_CLASSES, spec.dataset.num_classes)), _PER_CLASS)
        grid = sample_grid(draw_samples(state, spec, labels), labels, class_names)
        with self._or_none():
            self._writer.add_image("samples", np.asarray(grid), state.step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still in memory."""
        with self._or_none():
            if self._writer is not None:
                self._writer.close()

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _log.warning("no more tensorboard events are written: %s", error)
            self._writer = None


class _Averaged(nn.Module):
    """The model of a training with the averaged weights, of which no copy is made."""

    def __init__(self, state: TrainingState) -> None:
        super().__init__()
        self.model, self.shadow = state.model, state.ema.shadow

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return functional_call(self.model, self.shadow, (x_t, t, y))


def draw_samples(state: TrainingState, spec: TrainingSpec, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Samples with the averaged weights, from noise that depends on the seed alone.

    Args:
        state: Model and averaged weights; the model keeps its own.
        spec: Size of the images, precision and seed.
        labels: int64, shape (B,).

    Returns:
        uint8, shape (B, H, W, C).
    """
    size, training = spec.dataset.image_size, spec.training
    device = next(state.model.parameters()).device
    counters = ((index,) for index in range(len(labels)))
    x_0 = noise(training.seed, Stream.SAMPLING_NOISE, counters, (3, size, size), torch.device("cpu"))
    y = torch.from_numpy(labels).to(device)
    with autocast(training.precision, device):
        x = sample(_Averaged(state), x_0.to(device), y, _SAMPLING, spec.dataset.num_classes)
    return to_uint8(x).cpu().numpy()
