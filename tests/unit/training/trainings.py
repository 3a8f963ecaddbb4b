"""The tiny training with other settings, and an encoder for its alignment."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dip.diffusion.alignment import PatchEncoder
from dip.schema import TrainingSpec


def changed(spec: TrainingSpec, **changes: Any) -> TrainingSpec:
    """The same with other values under `training`."""
    return spec.model_copy(update={"training": spec.training.model_copy(update=changes)})


class Colours(torch.nn.Module):
    """A stand-in for DINOv2 with 2 x 2 patches."""

    num_prefix_tokens, num_features, patch_embed = 0, 3, SimpleNamespace(grid_size=(2, 2))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).transpose(1, 2)  # (B, 4, 3)


def use_encoder(monkeypatch: pytest.MonkeyPatch, checksum: str) -> None:
    """Have trainings aligned with the stand-in, as if its weights had this checksum."""
    encoder = PatchEncoder(Colours(), (0.5,) * 3, (0.5,) * 3, 8, checksum)
    monkeypatch.setattr("dip.diffusion.alignment.load_encoder", lambda name, path: encoder)
