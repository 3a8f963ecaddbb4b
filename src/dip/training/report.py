"""What a training shows while it runs: a progress bar, `training.jsonl`, and tensorboard events."""

from __future__ import annotations

import contextlib
import csv
import json
from pathlib import Path
from typing import Any, Self

from dip.environment import device_name
from dip.files import atomic_write
from dip.progress import Progress
from dip.schema import TrainingSpec
from dip.training.distributed import Group
from dip.training.events import Events
from dip.training.interval import SPIKE_MEMORY
from dip.training.optimization import loss_weights
from dip.training.state import TrainingState


class Report:
    """Keeps the log in the training's state, and shows it to people; only the main process writes.

    Args:
        spec: Data, model and optimisation.
        state: The training.
        group: Its processes.
        work: Folder of `training.jsonl` and of the event files.
    """

    def __init__(self, spec: TrainingSpec, state: TrainingState, group: Group, work: Path) -> None:
        self._spec, self._state, self._group, self._work = spec, state, group, work
        self._stack = contextlib.ExitStack()
        self._progress: Progress | None = None
        self._events: Events | None = None

    def __enter__(self) -> Self:
        if self._group.is_main:
            step = self._state.step
            write_log(self._work, self._state.log)  # without lines that are newer than the checkpoint
            self._events = self._stack.enter_context(contextlib.closing(Events(self._work / "events", step)))
            bar = Progress("train", total=self._spec.num_steps, initial=step, unit="step")
            self._progress = self._stack.enter_context(bar)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def advance(self) -> None:
        """A step is done."""
        if self._progress is not None:
            self._progress.advance()

    def line(self, learning_rate: float, *, waited: float) -> None:
        """Close the interval with a line of the log; every process must call it."""
        state, training = self._state, self._spec.training
        measured = state.interval.close(
            batch_size=training.batch_size,
            weights=loss_weights(training),
            recent=[line["velocity_loss"] for line in state.log[-SPIKE_MEMORY:]],
            waited=waited,
        )
        state.device_hours += measured.pop("device_hours")
        line = {
            "step": state.step,
            "epoch": state.step / self._spec.steps_per_epoch,
            **measured,
            "learning_rate": learning_rate,
            "gpu_hours": state.device_hours,
            "device": device_name(self._group.device),
        }
        state.log.append(line)
        if self._progress is not None and self._events is not None:
            self._progress.note(f"loss {line['loss']:.4f}")
            self._events.line(line)
            # A full disk ends the training when a checkpoint cannot be written; the end writes the whole log again.
            with contextlib.suppress(OSError), (self._work / "training.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def samples(self, class_names: list[str]) -> None:
        """Show a grid of samples with the averaged weights."""
        if self._events is not None:
            self._events.samples(self._state, self._spec, class_names)


def write_log(work: Path, log: list[dict[str, Any]]) -> None:
    """Write the whole of `training.jsonl`, a JSON object per line, atomically."""
    with atomic_write(work / "training.jsonl") as file:
        file.writelines(json.dumps(line) + "\n" for line in log)


def write_curves(work: Path, log: list[dict[str, Any]]) -> None:
    """Write the numbers of the log as `training.csv`, a line per logged step, for DVC, which reads no JSON lines."""
    columns = [key for key, value in log[0].items() if isinstance(value, int | float)] if log else []
    with atomic_write(work / "training.csv") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(log)
