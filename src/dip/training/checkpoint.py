"""Weights that are published, and the state that a training goes on from."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dip.files import atomic_write, sha256, write_json
from dip.paths import saved_steps

_log = logging.getLogger(__name__)
FORMAT = 3  # of a checkpoint; raise it when older ones cannot be read any more


def save_weights(path: Path, weights: dict[str, Tensor], spec: str) -> None:
    """Write weights as safetensors, with the parameters of their training as metadata.

    Args:
        path: File to write, atomically.
        weights: Name to tensor.
        spec: `TrainingSpec.canonical()`.
    """
    content = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    # One key of metadata: safetensors writes several in no fixed order, and the file would not be reproducible.
    with atomic_write(path, "wb") as file:
        file.write(save(content, metadata={"training": spec}))


def load_weights(path: Path, model: nn.Module) -> None:
    """Load published weights into a model of the same architecture.

    Raises:
        ValueError: The file is missing or unreadable, or is of another architecture; the first difference is named.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}); train the run again") from None
    expected = model.state_dict()
    for name, value in expected.items():
        if name not in weights:
            raise ValueError(f"{path}: of another architecture: it has no '{name}' of shape {tuple(value.shape)}")
        if weights[name].shape != value.shape:
            raise ValueError(
                f"{path}: of another architecture: '{name}' has shape {tuple(weights[name].shape)}, "
                f"the model needs {tuple(value.shape)}"
            )
    for name in weights:
        if name not in expected:
            raise ValueError(f"{path}: of another architecture: the model has no '{name}'")
    model.load_state_dict(weights)


class StateFolder:
    """Checkpoints of a training in progress: the last two, each with its checksum.

    A checkpoint is `state-<step>.pt` beside `state-<step>.json` with its SHA-256; the JSON comes last, so a
    checkpoint without one was not finished. The one before is kept in case the last was damaged.

    Args:
        folder: Where they stand.
        training: What names the parameters and data of the training; checkpoints of another are refused.
    """

    def __init__(self, folder: Path, training: str = "") -> None:
        self.folder = folder
        self._training = hashlib.sha256(training.encode()).hexdigest()
        self._damaged: set[int] = set()  # steps whose checkpoints `find` passed over

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state of a step, then remove all but the last two, damaged ones not counted.

        Raises:
            OSError: The folder cannot be written to or the disk is full; the earlier checkpoints stay.
        """
        path = self._path(step)
        with atomic_write(path, "wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None  # a full disk, which torch words as an internal error
                raise
        content = {"format": FORMAT, "step": step, "sha256": sha256(path), "training": self._training}
        write_json(path.with_suffix(".json"), content)
        self._damaged.discard(step)
        kept = [other for other in saved_steps(self.folder) if other <= step and other not in self._damaged][-2:]
        for old in set(saved_steps(self.folder)) - set(kept):
            self._path(old).with_suffix(".json").unlink(missing_ok=True)
            self._path(old).unlink(missing_ok=True)

    def find(self) -> int | None:
        """The step of the newest intact checkpoint, or None; damaged ones are passed over with a warning.

        Raises:
            ValueError: The newest checkpoint is of another version of this code, or of another training.
        """
        for partial in self.folder.glob(".state-*.tmp"):
            partial.unlink(missing_ok=True)  # left by a call that was killed while it saved
        for step in reversed(saved_steps(self.folder)):
            path = self._path(step)
            try:
                record = json.loads(path.with_suffix(".json").read_text())
                self._refuse_foreign(path, record)
                if sha256(path) != record["sha256"]:
                    raise OSError("its checksum is not the recorded one")
                return step
            except (OSError, json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError) as error:
                _log.warning("%s is damaged (%s); going back to the one before", path, error)
                self._damaged.add(step)
        return None

    def read(self, step: int) -> dict[str, Any]:
        """The state of a step that `find` found, on the CPU."""
        return torch.load(self._path(step), map_location="cpu", weights_only=True)

    def newest(self) -> int | None:
        """The step of the newest finished checkpoint, unchecked."""
        return max(saved_steps(self.folder), default=None)

    def clear(self) -> None:
        """Remove every checkpoint, finished or not, of a training that is done."""
        for path in (*self.folder.glob("state-*"), *self.folder.glob(".state-*.tmp")):
            path.unlink(missing_ok=True)

    def _refuse_foreign(self, path: Path, record: dict[str, Any]) -> None:
        version = record.get("format", 1)
        if version != FORMAT:
            raise ValueError(
                f"{path}: a checkpoint of format {version}, and this version of the code reads {FORMAT}; go on with "
                f"the version that wrote it, or remove {self.folder} to begin again"
            )
        if record["training"] != self._training:
            raise ValueError(
                f"{path}: a checkpoint of a training with other parameters or data; train in another folder, or "
                f"remove {self.folder} to begin again"
            )

    def _path(self, step: int) -> Path:
        return self.folder / f"state-{step:08d}.pt"
