"""When checkpoints are written, and writing them while the training goes on."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Self

import torch
from torch import Tensor

from dip.training.checkpoint import StateFolder
from dip.training.distributed import Group
from dip.training.signals import Request


class Saver:
    """Writes checkpoints in a thread, one at a time; the loop only waits for the copy that the thread writes.

    The copy is in the memory of the host, on GPU machines in pinned memory. An error of the thread, such as a full
    disk, comes out at the next call of `request`, `save` or `wait`.

    Args:
        folder: Where the checkpoints go.
        every_seconds: Time between two checkpoints.
        every_steps: Also save after every step that this divides.
        group: The processes of the training; the main one writes.
    """

    def __init__(self, folder: StateFolder, *, every_seconds: float, every_steps: int | None, group: Group) -> None:
        self._folder, self._is_main = folder, group.is_main
        self._every_seconds, self._every_steps = every_seconds, every_steps
        self._last = time.monotonic()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()  # a checkpoint that was begun is good, also if the training has failed since

    def request(self) -> Request:
        """SAVE in the main process when it is time for a checkpoint and none is being written."""
        if self._writing is not None and self._writing.done():
            self.wait()
        due = time.monotonic() - self._last >= self._every_seconds
        return Request.SAVE if due and self._is_main and self._writing is None else Request.NOTHING

    def due_by_step(self, step: int) -> bool:
        """Whether a checkpoint is due after this step, the same in every process."""
        return self._every_steps is not None and step % self._every_steps == 0

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Copy the state and begin to write it, when the one before has been written."""
        self.wait()
        if self._is_main:
            self._writing = self._thread.submit(self._folder.save, step, snapshot(state))
        self._last = time.monotonic()

    def wait(self) -> None:
        """Wait for the checkpoint that is being written.

        Raises:
            OSError: It could not be written; the one before stays.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def last_good(self) -> str:
        """Where the training can go on from, for a message."""
        if self._writing is not None:
            wait([self._writing])
        step = self._folder.newest()
        return (
            "no checkpoint yet"
            if step is None
            else f"the last good checkpoint is of step {step} in {self._folder.folder}"
        )


def snapshot(state: Any) -> Any:
    """A copy of nested dictionaries, lists and tensors in the memory of the host, which later steps do not change."""
    copy = _copy(state)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return copy


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        host = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        return host.copy_(value.detach(), non_blocking=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(item) for item in value)
    return value
