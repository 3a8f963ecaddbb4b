"""Rows are read from run folders, and what is wrong there is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dip.reporting.measured import MeasuredRow

_WHO: dict[str, Any] = {"section": "Heads", "label": "U-Net", "run": "demo_dip", "nfe": "25x2"}


def test_reads_all_files(run_folder: Callable[..., Path]) -> None:
    """A file is not read or lands in the wrong place."""
    row = MeasuredRow.load(run_folder(), epochs=4, **_WHO)
    assert (row.metrics["fid"], row.parameters["num_parameters"]) == (12.974, 630_612_345)
    assert row.latency is not None and row.latency["latency_seconds"] == 0.2034
    assert row.training["gpu_hours"] == pytest.approx(0.0302)


def test_milestone_costs_what_it_took(run_folder: Callable[..., Path]) -> None:
    """A milestone is charged with the training after it, or with none of its own run."""
    training, run = run_folder("long"), run_folder("milestone")
    (run / "params.json").unlink()
    (run / "training.jsonl").unlink()
    row = MeasuredRow.load(run, epochs=2, training_folder=training, **_WHO)
    assert row.training["gpu_hours"] == pytest.approx(0.0151)
    between = MeasuredRow.load(run, epochs=2.5, training_folder=training, **_WHO)
    assert between.training["gpu_hours"] == pytest.approx(0.018875), "the log has a line at epochs 2 and 3"


@pytest.mark.parametrize("name", ["metrics.json", "params.json", "training.jsonl"])
def test_missing_file_is_named(run_folder: Callable[..., Path], name: str) -> None:
    """The message does not say which file to make."""
    folder = run_folder()
    (folder / name).unlink()
    with pytest.raises(ValueError, match=f"{name}: missing"):
        MeasuredRow.load(folder, epochs=4, **_WHO)


@pytest.mark.parametrize("name", ["metrics.json", "params.json", "latency.json", "training.jsonl"])
@pytest.mark.parametrize("content", [b'{"fid": 1', b"\xff\xfe", b"[1]", b"9" * 5000, b"[" * 100_000])
def test_damaged_file_is_named(run_folder: Callable[..., Path], name: str, content: bytes) -> None:
    """A half-written file gives a bare decoder error without its path."""
    folder = run_folder()
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=name):
        MeasuredRow.load(folder, epochs=4, **_WHO)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("fid", float("nan")), ("sfid", None), ("recall", "0.5"), ("num_samples", 0.5), ("feature_extractor", 1)),
        *(("deviations", 5), ("patch_grid", 5)),
    ],
)
def test_wrong_value_is_named(run_folder: Callable[..., Path], key: str, value: Any) -> None:
    """A table prints nan, None or text as if it were a measurement."""
    with pytest.raises(ValueError, match=rf"metrics\.json: {key}"):
        MeasuredRow.load(run_folder(**{key: value}), epochs=4, **_WHO)


def test_missing_value_is_named(run_folder: Callable[..., Path]) -> None:
    """A metrics file of an older version gives a bare KeyError, or nobody knows what to do."""
    folder = run_folder()
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["sfid"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"metrics\.json: sfid is missing; remove it and run its stage again"):
        MeasuredRow.load(folder, epochs=4, **_WHO)


def test_unfinished_training_is_refused(run_folder: Callable[..., Path]) -> None:
    """A row of 8 epochs shows the cost of 4."""
    with pytest.raises(ValueError, match=r"training\.jsonl: ends at epoch 4 and the row is of epoch 8"):
        MeasuredRow.load(run_folder(), epochs=8, **_WHO)


def test_empty_log_is_refused(run_folder: Callable[..., Path]) -> None:
    """An empty log crashes without saying which."""
    folder = run_folder()
    (folder / "training.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"training\.jsonl: empty"):
        MeasuredRow.load(folder, epochs=4, **_WHO)


def test_latency_on_another_device_is_said(run_folder: Callable[..., Path]) -> None:
    """A latency of one device stands beside the name of another."""
    folder = run_folder(device="NVIDIA H200")
    (folder / "latency.json").write_text(json.dumps({"latency_seconds": 1.0, "device": "NVIDIA A100"}))
    assert MeasuredRow.load(folder, epochs=4, **_WHO).device == "NVIDIA H200; latency: NVIDIA A100"


@pytest.mark.parametrize(
    ("metrics", "protocol"),
    [
        ({"full_protocol": True, "num_samples": 50_000}, "full protocol"),
        ({}, "not the full protocol: 500 samples; photo network"),
        (
            {"deviations": ["500 samples instead of 50,000", "k = 5 instead of 3"]},
            "not the full protocol: 500 samples instead of 50,000; k = 5 instead of 3",
        ),
    ],
)
def test_protocol_is_said(make_row: Callable[..., MeasuredRow], metrics: dict[str, Any], protocol: str) -> None:
    """A figure of another evaluator or of few samples passes for the paper's."""
    assert make_row(**metrics).protocol == protocol
