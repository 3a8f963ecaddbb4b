"""A run folder with the files that a table reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dip.reporting.measured import MeasuredRow

METRICS = {
    "fid": 12.974,
    "sfid": 9.606,
    "inception_score": 7.1234,
    "precision": 0.612,
    "recall": 0.338,
    "num_samples": 500,
    "full_protocol": False,
    "feature_extractor": "photo network",
}


@pytest.fixture
def run_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a run's files: 4 epochs, 0.0302 hours, on a CPU unless told otherwise."""

    def write(name: str = "demo_dip", *, device: str = "CPU, AMD EPYC", **metrics: Any) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(METRICS | metrics))
        latency = {
            "latency_seconds": 0.2034,
            "latency_spread_seconds": 0.012,
            "images_per_second": 31.21,
            "best_batch_size": 16,
            "best_batch_peak_memory_bytes": 3 * 2**30,
            "device": device,
        }
        (folder / "latency.json").write_text(json.dumps(latency))
        (folder / "params.json").write_text(json.dumps({"num_parameters": 630_612_345, "device": device}))
        records = [
            {"step": 64 * epoch, "epoch": float(epoch), "gpu_hours": 0.00755 * epoch, "device": device}
            for epoch in (1, 2, 3, 4)
        ]
        (folder / "training.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        return folder

    return write


@pytest.fixture
def make_row(run_folder: Callable[..., Path]) -> Callable[..., MeasuredRow]:
    """A row loaded from such a folder."""

    def make(name: str = "demo_dip", *, section: str = "Heads", label: str | None = None, **values: Any) -> MeasuredRow:
        folder = run_folder(name, **values)
        return MeasuredRow.load(folder, section=section, label=label or name, run=name, epochs=4, nfe="25x2")

    return make
