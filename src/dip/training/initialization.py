"""`training.init_from`: the backbone of a training from a checkpoint of this project or of its lineage."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from dip.files import sha256
from dip.model import DiP
from dip.model.backbone import DiTBlock
from dip.model.lineage import Backbone, find_backbone, to_backbone, unwrapped

_HEADS = ("head.", "intermediate.")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)  # others need scales to mean anything


@dataclass(frozen=True)
class Report:
    """What a model took from a checkpoint; `str` has it as a paragraph.

    Attributes:
        path: The checkpoint.
        sha256: Its checksum.
        layout: Whose names it has (`dip.model.lineage`).
        prefix: Where in the checkpoint the weights were, such as `state_dict.ema_denoiser.`.
        num_tensors: Tensors taken.
        num_parameters: Numbers in them.
        left: Tensors left in the checkpoint, counted by part and reason.
        fresh: Tensors of the model that keep their random start, counted by part.
    """

    path: str
    sha256: str
    layout: str
    prefix: str
    num_tensors: int
    num_parameters: int
    left: dict[str, int]
    fresh: dict[str, int]

    def __str__(self) -> str:
        where = f", weights under '{self.prefix}'" if self.prefix else ""
        left, fresh = (
            "; ".join(f"{part}: {count} tensors" for part, count in counts.items()) or "nothing"
            for counts in (self.left, self.fresh)
        )
        return (
            f"started from {self.path} ({self.layout} layout{where}): took {self.num_parameters:,} parameters of the "
            f"backbone in {self.num_tensors} tensors. Left in the file: {left}. Starts anew: {fresh}."
        )


def load_backbone(model: DiP, path: Path) -> Report:
    """Give a model the backbone of a checkpoint; heads keep their start, and so does what the file cannot have.

    Args:
        model: The model, on any device; its dtype stays.
        path: `model.safetensors` of this project, or a checkpoint that torch saved (raw state dict, Lightning, `model`
            and `ema` side by side) of a layout in `dip.model.lineage`. No code in it is ever run.

    Raises:
        ValueError: The file is missing or unreadable, holds more than tensors and plain values, has no backbone, or
            one of other sizes. The model is as it was.
    """
    block = model.blocks[0]
    assert isinstance(block, DiTBlock)
    tensors = {unwrapped(name): value for name, value in _read(path).items()}
    try:
        prefix = find_backbone(set(tensors))
        source = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        backbone = to_backbone(source, len(model.blocks), block.attn.num_heads)
        taken = _fitting(model, backbone)
    except ValueError as error:
        raise ValueError(f"{path} (training.init_from): {error}") from None
    state = model.state_dict()
    with torch.no_grad():
        for name, value in taken.items():
            state[name].copy_(value)
    return Report(
        path=str(path),
        sha256=sha256(path),
        layout=backbone.layout,
        prefix=prefix,
        num_tensors=len(taken),
        num_parameters=sum(value.numel() for value in taken.values()),
        left=dict(Counter(_left(tensors, prefix, backbone, taken))),
        fresh=dict(Counter(name.split(".")[0] for name in state if name not in taken)),
    )


def _fitting(model: DiP, backbone: Backbone) -> dict[str, Tensor]:
    """The tensors to copy, one for every parameter of the model's backbone."""
    expected = {name: value for name, value in model.state_dict().items() if not name.startswith(_HEADS)}
    if not any(name.startswith("final_layer.") for name in backbone.weights):
        expected = {name: value for name, value in expected.items() if not name.startswith("final_layer.")}
    for name, value in expected.items():
        if name not in backbone.weights:
            raise ValueError(f"no '{name}' in it, which the model has with shape {tuple(value.shape)}")
        if backbone.weights[name].shape != value.shape:
            raise ValueError(
                f"'{name}' has shape {tuple(backbone.weights[name].shape)}, the model needs {tuple(value.shape)}"
            )
        if (dtype := backbone.weights[name].dtype) not in _DTYPES:
            raise ValueError(
                f"'{name}' is of {dtype}, expected {', '.join(map(str, _DTYPES))}; of a quantised checkpoint, take the "
                "one that it was made from"
            )
        if not torch.isfinite(backbone.weights[name]).all():
            raise ValueError(f"'{name}' has values that are not finite; the training that it comes from had failed")
    for name in backbone.weights:
        if name not in expected and not name.startswith("final_layer."):
            raise ValueError(f"'{name}' in it, which the model has not and without which it would not be the same")
    return {name: backbone.weights[name] for name in expected}


def _left(tensors: Mapping[str, Tensor], prefix: str, backbone: Backbone, taken: Mapping[str, Tensor]) -> Iterator[str]:
    """Part and reason of every tensor that was left."""
    for name in tensors:
        if not name.startswith(prefix):
            yield f"{name.removeprefix('state_dict.').split('.')[0]} (not among the weights taken)"
    for name, reason in backbone.left.items():
        yield f"{name.split('.')[0]} ({reason})"
    for name in backbone.weights:
        if name not in taken:
            yield f"{name.split('.')[0]} (the model ends with a head)"


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name; those of nested dictionaries have their keys joined by dots."""
    if not path.is_file():
        raise ValueError(f"{path} (training.init_from): there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises anything over a damaged file
        code = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code is not None:
            raise ValueError(
                f"{path} (training.init_from): not opened, because it holds code or objects ('{code[1]}') beside its "
                "tensors; where you trust it, save its state dict alone, as safetensors or with torch.save"
            ) from None
        raise ValueError(
            f"{path} (training.init_from): not a readable checkpoint: cut short, a plain pickle, or of another kind "
            "than safetensors and torch.save write"
        ) from None  # torch's own message advises to trust the file
    return dict(_flat(content, ""))


def _flat(content: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping):
        average = next((key for key in content if isinstance(key, float)), None)  # of ours, by decay: the published one
        for key, value in content.items():
            if isinstance(key, str) or key == average:  # an optimiser's state has whole numbers
                yield from _flat(value, f"{name}.{key}" if name else key)
