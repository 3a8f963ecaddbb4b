"""Settings of a training reach the parts of its loop that they are for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trainings import changed, log

from dip.data.local import LOCAL_DATA
from dip.paths import Store
from dip.progress import recorded
from dip.schema import TrainingSpec
from dip.training import checkpoint, loop, state
from dip.training.loop import train


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_flips_clipping_and_precision_are_those_of_the_settings(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """Wrong: images would be mirrored, gradients not clipped, or bf16 not used, whatever params.yaml says."""
    monkeypatch.setattr("dip.precision._has_bfloat16", lambda device_type: True)
    flips, clips, casts = set(), set(), set()
    load_batch, gradient_norm, losses_of = loop.load_batch, loop.gradient_norm, loop.losses_of
    monkeypatch.setattr(loop, "load_batch", lambda *a, flip, **s: (flips.add(flip), load_batch(*a, flip=flip, **s))[1])
    monkeypatch.setattr(loop, "gradient_norm", lambda *a: (clips.add(a[1]), gradient_norm(*a))[1])
    is_cast = torch.is_autocast_enabled
    monkeypatch.setattr(loop, "losses_of", lambda *a: (casts.add(is_cast(a[2].device.type)), losses_of(*a))[1])
    settings = {"horizontal_flip": False, "gradient_clip": 0.5, "precision": precision, "epochs": 1, "milestones": ()}
    train(changed(spec, **settings), Path("work"))
    assert (flips, clips, casts) == ({False}, {0.5}, {precision == "bf16"})
    assert {value.dtype for value in load_file("work/model.safetensors").values()} == {torch.float32}
    dtype = {"bf16": "bfloat16", "fp32": "float32"}[precision]
    assert json.loads(Path("work/params.json").read_text())["dtype"] == dtype


def test_steps_have_the_rate_and_the_labels_of_the_settings(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: the schedule would be shifted by a step, or "no class" would be a class."""
    labels, losses_of = set(), loop.losses_of
    monkeypatch.setattr(loop, "losses_of", lambda *a: (labels.update(a[2].tolist()), losses_of(*a))[1])
    settings = {"warmup_steps": 2, "schedule": "cosine", "label_dropout": 1.0, "log_every": 1}
    train(changed(spec, **settings, epochs=1, milestones=()), Path("work"))
    assert [line["learning_rate"] for line in log(Path("work"))] == pytest.approx([5e-3, 1e-2, 1e-2, 5e-3])
    assert labels == {spec.dataset.num_classes}


def test_settings_reach_what_they_are_for(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wrong: nothing saved by time, --speed or the node's own disk ignored, progress or the last line missing."""
    read, speeds, saves = [], [], []
    store, set_speed, save = loop.ImageStore, state.set_speed, checkpoint.StateFolder.save
    monkeypatch.setenv(LOCAL_DATA, str(tmp_path / "local"))
    monkeypatch.setattr(loop, "ImageStore", lambda *a: (read.append(a[0].folder.parent), store(*a))[1])
    monkeypatch.setattr(state, "set_speed", lambda *a: (speeds.append(a[1]), set_speed(*a))[1])
    monkeypatch.setattr(checkpoint.StateFolder, "save", lambda *a: (saves.append(a[1]), save(*a))[1])
    shorter = changed(spec, epochs=1, milestones=(), log_every=3)
    moved = Store(Path(shutil.move(Store.of("photos").folder, "elsewhere")))
    with recorded(Path("progress.json")):
        train(shorter, Path("work"), save_seconds=0, speed="plain", data=moved)
    assert json.loads(Path("progress.json").read_text())["done"] == 4
    assert [line["step"] for line in log(Path("work"))] == [3, 4]
    assert (read, speeds, bool(saves)) == ([tmp_path / "local"], ["plain"], True)
