"""Backbones of the improved-DiT lineage under this model's names (section 3.4: a pre-trained DiT with a fresh head).

| layout | published as | what it is to this model |
|---|---|---|
| dip | this project | the backbone, name by name |
| improved DiT | DDT's `DiT`, DeCo's `FlattenDiT` | the backbone and its final layer |
| PixNerd | PixNerd's and DeCo's `PixNerDiT` | the backbone; its other blocks and `dec_net` are a head |
| decoupled DDT | DDT's `DDT` | the encoder is the backbone; the decoder is of another kind |

Three names differ, and one order: the lineage rotates the neighbouring channels 2j and 2j + 1 of q and k as one plane
(RoFormer), this model channel j and channel j + d / 2. All else is the same: patches are flattened channel, row,
column; planes turn by column and row in turn; t = 0 is noise; its features are cosines, then sines, with a longest
period of 20 pi; `w2(SiLU(w1 x) * w3 x)`; and blocks see SiLU(t_emb + y_emb).

Shapes: D hidden size, h heads, d = D / h channels of one head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

# What every layout has, and an encoder of images (REPA's DINOv2) or a head has not.
_MARKS = ("t_embedder.mlp.0.weight", "blocks.0.attn.qkv.weight")
_PATCH_EMBEDDING = {
    "dip": "x_embedder.",
    "improved DiT": "x_embedder.proj.",
    "PixNerd": "s_embedder.proj.",
    "decoupled DDT": "s_embedder.proj.",
}
_WRAPPERS = ("_orig_mod", "module")  # torch.compile, DistributedDataParallel


@dataclass(frozen=True)
class Backbone:
    """Tensors of a checkpoint under this model's names.

    Attributes:
        layout: A key of the table above.
        weights: The backbone, and the final layer if it is a DiT's; q and k in this model's order.
        left: Names of the other tensors, as they stand in the checkpoint, and why they were left.
    """

    layout: str
    weights: dict[str, Tensor]
    left: dict[str, str]


def unwrapped(name: str) -> str:
    """A parameter's name without what torch.compile and DistributedDataParallel put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def find_backbone(names: set[str]) -> str:
    """The prefix of the weights to take: the averaged ones (EMA) where there are several.

    Args:
        names: All names of a checkpoint, `unwrapped`.

    Raises:
        ValueError: There is no backbone, or one cannot be chosen.
    """
    prefixes = [name.removesuffix(_MARKS[0]) for name in names if name.endswith(_MARKS[0])]
    prefixes = sorted(prefix for prefix in prefixes if prefix + _MARKS[1] in names)
    averaged = [prefix for prefix in prefixes if re.search(r"(^|[._])ema", prefix)]
    if len(averaged or prefixes) == 1:
        return (averaged or prefixes)[0]
    if prefixes:
        shown = ", ".join(f"'{prefix}'" for prefix in averaged or prefixes)
        raise ValueError(f"several backbones, under {shown}; keep one of them in the file")
    raise ValueError(
        f"no backbone of a DiT in it: no names that end in '{_MARKS[0]}' and '{_MARKS[1]}'; expected a checkpoint of "
        "this project or of an improved DiT (DDT, PixNerd, DeCo)"
    )


def to_backbone(source: Mapping[str, Tensor], depth: int, num_heads: int) -> Backbone:
    """Rename the tensors of a checkpoint and put q and k into this model's order.

    Args:
        source: Name to tensor, without prefix and wrappers.
        depth: Transformer blocks of the model to load.
        num_heads: h.

    Raises:
        ValueError: No patch embedding, or another number of blocks.
    """
    layout = _layout(source)
    num_blocks = sum(re.fullmatch(r"blocks\.\d+\.attn\.qkv\.weight", name) is not None for name in source)
    if layout == "decoupled DDT":
        # ASSUMPTION: the file does not say how many of its blocks are the encoder's; the model's depth does.
        if num_blocks <= depth:
            raise ValueError(
                f"a decoupled DDT of {num_blocks} blocks, the model has {depth}; its encoder, the part that can be "
                "taken, has fewer blocks than the whole: set the model's depth to the encoder's"
            )
    elif num_blocks != depth:
        raise ValueError(f"it has {num_blocks} transformer blocks, the model {depth}; set the model's depth to that")
    weights: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name, value in source.items():
        ours = _our_name(name, layout, depth)
        if ours is None:
            left[name] = _why_left(name, layout, source)
        else:
            weights[ours] = value if layout == "dip" else _reorder(ours, value, num_heads)
    return Backbone(layout, weights, left)


def neighbours_to_halves(weight: Tensor, head_size: int) -> Tensor:
    """Reorder the channels of each head, (0, 1, 2, 3, ..., d - 1) to (0, 2, ..., d - 2, 1, 3, ..., d - 1).

    Args:
        weight: Shape (k d, ...), the channels of k heads in the first dimension.
        head_size: d, even.
    """
    return rearrange(weight, "(k plane two) ... -> (k two plane) ...", plane=head_size // 2, two=2)


def _layout(source: Mapping[str, Tensor]) -> str:
    if "s_embedder.proj.weight" in source:
        return "decoupled DDT" if "x_embedder.proj.weight" in source else "PixNerd"
    for layout in ("dip", "improved DiT"):
        if _PATCH_EMBEDDING[layout] + "weight" in source:
            return layout
    raise ValueError("it has no patch embedding: neither x_embedder.weight nor x_embedder.proj nor s_embedder.proj")


def _our_name(name: str, layout: str, depth: int) -> str | None:
    """This model's name of a tensor; None if it is not of the backbone."""
    if name.startswith(_PATCH_EMBEDDING[layout]):
        return "x_embedder." + name.removeprefix(_PATCH_EMBEDDING[layout])
    block = re.match(r"blocks\.(\d+)\.", name)
    taken = (
        int(block[1]) < depth
        if block
        else name.startswith(("t_embedder.", "y_embedder."))
        or (name.startswith("final_layer.") and layout in ("dip", "improved DiT"))
    )
    return name.replace(".adaLN_modulation.0.", ".adaLN_modulation.") if taken else None


def _why_left(name: str, layout: str, source: Mapping[str, Tensor]) -> str:
    if layout == "decoupled DDT" and name.startswith(("blocks.", "x_embedder.", "final_layer.")):
        return "the decoder's, which another condition modulates"
    if name.startswith(("head.", "intermediate.", "blocks.", "x_embedder.", "final_layer.", "dec_net.")):
        return "the head's, not the backbone's"
    return "not of the backbone"


def _reorder(name: str, value: Tensor, num_heads: int) -> Tensor:
    """Q and k of one tensor in this model's order; a tensor of an unexpected shape stays, to be refused later."""
    if name.endswith((".attn.q_norm.weight", ".attn.k_norm.weight")) and value.shape[0] % 2 == 0:
        return neighbours_to_halves(value, value.shape[0])
    if name.endswith(".attn.qkv.weight") and value.shape[0] % (6 * num_heads) == 0:
        q, k, v = value.chunk(3)  # each (D, D)
        head_size = q.shape[0] // num_heads
        return torch.cat([neighbours_to_halves(q, head_size), neighbours_to_halves(k, head_size), v])
    return value
