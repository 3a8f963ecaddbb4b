"""The steps since the last line of the log: losses, guards against losses that go wrong, and speed."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dip.memory import peak_memory
from dip.training.distributed import Group
from dip.training.optimization import LOSSES

_log = logging.getLogger(__name__)
# ASSUMPTION: twice the recent mean is a spike; the intervals of a sound training differ by percents.
SPIKE_FACTOR = 2.0
SPIKE_MEMORY = 20  # lines of the log in that mean
# ASSUMPTION: from a tenth of the time on, waiting for data is worth mending.
DATA_WAIT_THRESHOLD = 0.1
_COLUMNS = len(LOSSES) + 1  # and the gradient norm


class NonFiniteError(RuntimeError):
    """The loss or the gradient is not a number any more; the message says where and what was kept."""


class Interval:
    """Losses and gradient norms of the steps since the last line of the log.

    They stay on the device until the log or a checkpoint asks for them, so that no step waits for the device. Means
    over processes are taken in float64, where the order of a few float32 numbers does not matter: a line of the log
    is the same wherever a checkpoint fell into its interval.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._num_lines = 0
        self._warned = False
        self._begin(torch.empty(0, _COLUMNS, dtype=torch.float64), 0.0)

    def _begin(self, values: Tensor, seconds: float) -> None:
        self._values = values  # (steps, _COLUMNS), means over the processes
        self._pending: list[Tensor] = []  # (_COLUMNS,) for every step after those, of this process
        self._seconds_before = seconds
        self._start = time.monotonic()

    def add(self, losses: Tensor, gradient_norm: Tensor) -> None:
        """Note a step.

        Args:
            losses: `LOSSES` of this process, shape (2,).
            gradient_norm: Norm of the gradient of all processes, a scalar.
        """
        self._pending.append(torch.cat([losses, gradient_norm.reshape(1).to(losses.dtype)]))

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint in the middle of an interval needs; every process must call it."""
        return {"values": self._gather(), "seconds": self._seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._begin(state["values"], state["seconds"])

    def problem(self, step: int) -> str | None:
        """What is not finite since the last line, if anything is; every process must call it.

        Args:
            step: The step that was added last, counted from 1.
        """
        values = self._gather()
        broken = ~torch.isfinite(values)
        if not broken.any():
            return None
        first = int(broken.any(dim=1).nonzero()[0])
        what = "loss" if broken[first, : len(LOSSES)].any() else "gradient"
        return f"the {what} is not finite at step {step - len(values) + first + 1}"

    def close(
        self, *, batch_size: int, weights: Mapping[str, float], recent: Sequence[float], waited: float
    ) -> dict[str, Any]:
        """A line of the log, after which a new interval begins; every process must call it.

        Args:
            batch_size: Global batch.
            weights: Of the losses that the training has, by name.
            recent: Velocity losses of earlier lines.
            waited: Seconds in which this process has waited for data since the last line or the start of the call.

        Returns:
            Means over the interval; `device_hours`, GPUs or CPU threads times hours; `data_wait`, the fraction of the
            time that the slowest process waited for data; `memory_gib`, the most that a process has used so far.
        """
        values, seconds = self._gather(), self._seconds
        *losses, gradient_norm = values.mean(dim=0).tolist()
        named = {name: loss for name, loss in zip(LOSSES, losses, strict=True) if name in weights}
        velocity = named["velocity_loss"]
        data_wait, memory = self._group.maximum(
            waited / (time.monotonic() - self._start), peak_memory(self._group.device)
        )
        usual = sum(recent) / len(recent) if recent else velocity
        line = {
            "loss": sum(weights[name] * loss for name, loss in named.items()),
            **named,
            "gradient_norm": gradient_norm,
            "loss_spike": velocity > SPIKE_FACTOR * usual,
            "images_per_second": len(values) * batch_size / seconds,
            "data_wait": data_wait,
            "memory_gib": memory / 2**30,
            "device_hours": seconds * self._group.num_devices / 3600,
        }
        if line["loss_spike"]:
            _log.warning("loss spike: %.4g, and %.4g in the %d lines before", velocity, usual, len(recent))
        if data_wait > DATA_WAIT_THRESHOLD and self._num_lines > 0 and not self._warned:
            _log.warning("%.0f %% of the time is spent waiting for data; is the disk slow?", 100 * data_wait)
            self._warned = True  # once; the first line of a call has the start of reading in it
        self._num_lines += 1
        self._begin(values[:0], 0.0)
        return line

    @property
    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._start

    def _gather(self) -> Tensor:
        if self._pending:
            self._values = torch.cat([self._values, self._group.mean(torch.stack(self._pending))])
            self._pending = []
        return self._values
