"""The tiny training with other settings, its log, and an encoder for its alignment."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dip.diffusion.alignment import PatchEncoder
from dip.schema import TrainingSpec

MEASURED = ("images_per_second", "gpu_hours", "data_wait", "memory_gib")


def changed(spec: TrainingSpec, **changes: Any) -> TrainingSpec:
    """The same with other values under `training`."""
    return spec.model_copy(update={"training": spec.training.model_copy(update=changes)})


def log(work: Path) -> list[dict[str, Any]]:
    """The training log without what depends on the clock."""
    lines = (work / "training.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in MEASURED} for line in lines]


class Colours(torch.nn.Module):
    """A stand-in for DINOv2 with 2 x 2 patches."""

    num_prefix_tokens, num_features, patch_embed = 0, 3, SimpleNamespace(grid_size=(2, 2))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)  # (B, 4, 3)


def use_encoder(monkeypatch: pytest.MonkeyPatch, checksum: str) -> None:
    """Have trainings aligned with the stand-in, as if its weights had this checksum."""
    encoder = PatchEncoder(Colours(), (0.5,) * 3, (0.5,) * 3, 8, checksum)
    monkeypatch.setattr("dip.diffusion.alignment.load_encoder", lambda name, path: encoder)
