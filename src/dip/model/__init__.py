"""The network: a DiT over large patches and a Patch Detailer Head; `build_model` makes it."""

from __future__ import annotations

from dip.model.assembly import HEADS, DiP, build_model
from dip.model.backbone import patchify, unpatchify
from dip.model.head import INITIALISATIONS, PatchDetailerHead
from dip.model.head_attention import AttentionHead
from dip.model.head_coordinate import CoordinateHead
from dip.model.head_mlp import MLPHead
from dip.model.head_unet import UNetHead
from dip.model.placement import PLACEMENTS

__all__ = [
    "HEADS",
    "INITIALISATIONS",
    "PLACEMENTS",
    "AttentionHead",
    "CoordinateHead",
    "DiP",
    "MLPHead",
    "PatchDetailerHead",
    "UNetHead",
    "build_model",
    "patchify",
    "unpatchify",
]
