"""A measured row of a table, read from the files of its run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

_METRICS = ("fid", "sfid", "inception_score", "precision", "recall")  # what all results have
_PATCH_GRID = ("seams", "period")


@dataclass(frozen=True)
class MeasuredRow:
    """What a table says about one run, as the run's own files have it.

    Attributes:
        section: Heading under which the row stands.
        label: Name of the method.
        run: Name of the run.
        metrics: Content of metrics.json.
        latency: Content of latency.json, None if it was not measured.
        parameters: Content of params.json.
        training: The record of training.jsonl that closes the training.
        epochs: Epochs of training behind the weights.
        nfe: Evaluations of the network per image in the paper's notation, as "100x2".
        init_from: Checkpoint that the training started from, whose own training is in no figure of the row; or None.
    """

    section: str
    label: str
    run: str
    metrics: Mapping[str, Any]
    latency: Mapping[str, Any] | None
    parameters: Mapping[str, Any]
    training: Mapping[str, Any]
    epochs: float
    nfe: str
    init_from: str | None = None

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        section: str,
        label: str,
        run: str,
        epochs: float,
        nfe: str,
        training_folder: str | Path | None = None,
        init_from: str | None = None,
    ) -> Self:
        """Read a row from its run's folder.

        Args:
            folder: Folder with metrics.json and, if it was measured, latency.json.
            section: Heading under which the row stands.
            label: Name of the method.
            run: Name of the run.
            epochs: Epochs of training behind the weights; a milestone's training cost ends there.
            nfe: Evaluations of the network per image.
            training_folder: Folder with params.json and training.jsonl, where the weights come from the training
                of another run.
            init_from: Checkpoint that the training started from.

        Raises:
            ValueError: A file is missing, cannot be read or lacks a value; the message names it.
        """
        folder = Path(folder)
        training_folder = Path(training_folder or folder)
        latency = folder / "latency.json"
        return cls(
            section=section,
            label=label,
            run=run,
            metrics=read_metrics(folder / "metrics.json"),
            latency=read_latency(latency) if latency.exists() else None,
            parameters=_parameters(training_folder / "params.json"),
            training=_closing_record(training_folder / "training.jsonl", epochs),
            epochs=epochs,
            nfe=nfe,
            init_from=init_from,
        )

    @property
    def evaluator(self) -> tuple[str, int]:
        """Features and number of samples; rows that differ in it cannot be compared."""
        return self.metrics["feature_extractor"], self.metrics["num_samples"]

    @property
    def device(self) -> str:
        """What it was trained on, and what its latency was measured on if that is something else."""
        trained = str(self.parameters["device"])
        timed = str(self.latency["device"]) if self.latency is not None else trained
        return trained if timed == trained else f"{trained}; latency: {timed}"

    @property
    def protocol(self) -> str:
        """Whether the metrics follow the paper's protocol, and if not, what they are."""
        if self.metrics["full_protocol"]:
            return "full protocol"
        extractor, num_samples = self.evaluator
        deviations = self.metrics.get("deviations") or [f"{num_samples} samples", extractor]
        return f"not the full protocol: {'; '.join(map(str, deviations))}"


def read_metrics(path: Path) -> dict[str, Any]:
    """Content of a metrics.json.

    Raises:
        ValueError: It is missing, cannot be read or lacks a value; the message names it.
    """
    content = _read_json(path)
    for key in _METRICS:
        _number(content, key, path)
    _value(content, "num_samples", int, path)
    _value(content, "feature_extractor", str, path)
    _value(content, "full_protocol", bool, path)
    if content.get("deviations") is not None:
        _value(content, "deviations", list, path)
    if content.get("patch_grid") is not None:
        _value(content, "patch_grid", dict, path)
        for key in _PATCH_GRID:
            _number(content["patch_grid"], key, path)
    return content


def read_latency(path: Path) -> dict[str, Any]:
    """Content of a latency.json.

    Raises:
        ValueError: As for `read_metrics`.
    """
    content = _read_json(path)
    _number(content, "latency_seconds", path)
    _value(content, "device", str, path)
    return content


def _parameters(path: Path) -> dict[str, Any]:
    content = _read_json(path)
    _value(content, "num_parameters", int, path)
    _value(content, "device", str, path)
    return content


def _closing_record(path: Path, epochs: float) -> dict[str, Any]:
    """The first record that has all the epochs behind it, with the hours up to their end.

    Milestones stand between lines of the log where an epoch is no multiple of `log_every` steps.
    """
    record, epoch, hours = None, 0.0, 0.0
    for record in _records(path):
        _number(record, "epoch", path)
        _number(record, "gpu_hours", path)
        _value(record, "device", str, path)
        if record["epoch"] >= epochs - 1e-6:
            share = min((epochs - epoch) / (record["epoch"] - epoch), 1.0)
            return record | {"gpu_hours": hours + share * (record["gpu_hours"] - hours)}
        epoch, hours = record["epoch"], record["gpu_hours"]
    if record is None:
        raise ValueError(f"{path}: empty; train the run again")
    raise ValueError(
        f"{path}: ends at epoch {record['epoch']:g} and the row is of epoch {epochs:g}; finish the training"
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        yield _object(line, path, f", line {number}")


def _read_json(path: Path) -> dict[str, Any]:
    return _object(_read_text(path), path, "")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; the stage that writes it has not run") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read ({error}); if it is damaged, remove it and run its stage again"
        ) from None


def _object(text: str, path: Path, place: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError of Python's own: a number of 5000 digits
        raise ValueError(f"{path}{place}: not valid JSON ({error}); remove it and run its stage again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}{place}: expected a JSON object, got {type(content).__name__}")
    return content


def _value(content: Mapping[str, Any], key: str, kind: type, path: Path) -> None:
    value = _present(content, key, path)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{path}: {key} should be of type {kind.__name__}, it is {value!r}")


def _number(content: Mapping[str, Any], key: str, path: Path) -> None:
    value = _present(content, key, path)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: {key} should be a finite number, it is {value!r}")


def _present(content: Mapping[str, Any], key: str, path: Path) -> Any:
    if key not in content:
        raise ValueError(f"{path}: {key} is missing; remove it and run its stage again")
    return content[key]
