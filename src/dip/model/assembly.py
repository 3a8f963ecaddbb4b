"""The whole model, DiP (Figure 1c, section 3.3): a DiT over large patches and a head that details each patch.

Shapes: B batch, H x W image, P patch side, N = HW / P^2 patches, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from dip.model.backbone import (
    CHANNELS,
    DiTBlock,
    FinalLayer,
    initialize_block,
    initialize_embedders,
    initialize_linear,
    patchify,
    unpatchify,
)
from dip.model.head import PatchDetailerHead, initialize_head
from dip.model.head_attention import AttentionHead
from dip.model.head_coordinate import CoordinateHead
from dip.model.head_mlp import MLPHead
from dip.model.head_unet import UNetHead
from dip.model.layers import LabelEmbedder, RotaryEmbedding2D, TimestepEmbedder, head_size_of
from dip.model.placement import PLACEMENTS, IntermediateInjection, intermediate_block

if TYPE_CHECKING:
    from dip import schema

HEADS: dict[str, type[PatchDetailerHead]] = {
    "unet": UNetHead,
    "mlp": MLPHead,
    "attention": AttentionHead,
    "coordinate": CoordinateHead,
}
"""Heads by their names in params.yaml."""


class Conditioning(NamedTuple):
    """All that times and labels tell the model; it does not depend on the image.

    Attributes:
        t_emb: Timestep embedding, shape (B, D).
        blocks: Modulation of every block, shape (B, 1, 6 D) each; stacked or not.
        final: Modulation of the final layer, shape (B, 1, 2 D); None for a model that ends with a head.
    """

    t_emb: Tensor
    blocks: Sequence[Tensor] | Tensor
    final: Tensor | None


class DiP(nn.Module):
    """Velocity of a noisy image, given its time and label; with neither head it is the paper's "DiT-only"."""

    def __init__(
        self,
        *,
        grid_size: tuple[int, int],
        num_classes: int,
        patch_size: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        qk_norm: bool,
        label_embedding_std: float,
        head: PatchDetailerHead | None,
        intermediate: IntermediateInjection | None,
        intermediate_block: int | None,
    ) -> None:
        """Make and initialise the backbone around heads that are already initialised; see `build_model`."""
        super().__init__()
        self.num_classes = num_classes
        self.patch_size = patch_size
        self.grid_size = grid_size
        self.intermediate_block = intermediate_block
        self.x_embedder = nn.Linear(CHANNELS * patch_size**2, hidden_size)
        self.t_embedder = TimestepEmbedder(hidden_size)
        self.y_embedder = LabelEmbedder(num_classes, hidden_size)
        self.rope = RotaryEmbedding2D(*grid_size, head_size_of(hidden_size, num_heads))
        self.blocks = nn.ModuleList(DiTBlock(hidden_size, num_heads, qk_norm=qk_norm) for _ in range(depth))
        self.intermediate = intermediate
        self.head = head
        self.final_layer = FinalLayer(hidden_size, patch_size) if head is None else None

        initialize_linear(self.x_embedder)
        initialize_embedders(self.t_embedder, self.y_embedder, label_embedding_std)
        for block in (*self.blocks, self.final_layer):
            if block is not None:
                initialize_block(block)

    def forward(
        self, x_t: Tensor, t: Tensor, y: Tensor, *, tokens_after: int | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the velocity.

        Args:
            x_t: Noisy images, shape (B, 3, H, W), H = W = the image size, about [-1, 1] at t = 1.
            t: Times in [0, 1], 0 is noise and 1 is data, shape (B,), float32.
            y: Labels in [0, num_classes], int64, shape (B,); num_classes stands for "no class".
            tokens_after: Number, 1 to depth, of a block whose output tokens are wanted too (for REPA), taken
                before an intermediate head adds to them.

        Returns:
            v of shape (B, 3, H, W); with `tokens_after` also the tokens of shape (B, N, D).

        Raises:
            ValueError: A shape does not fit, or there is no such block.
        """
        self._check(x_t, t, y, tokens_after)
        return self.denoise(x_t, self.conditioning(t, y), tokens_after=tokens_after)

    def conditioning(self, t: Tensor, y: Tensor) -> Conditioning:
        """What `denoise` needs to know of times and labels; arguments as in `forward`."""
        t_emb = self.t_embedder(t)  # (B, D)
        condition = F.silu(t_emb + self.y_embedder(y))[:, None]  # (B, 1, D)
        return Conditioning(
            t_emb,
            [block.adaLN_modulation(condition) for block in cast("Iterable[DiTBlock]", self.blocks)],
            None if self.final_layer is None else self.final_layer.adaLN_modulation(condition),
        )

    def denoise(
        self, x_t: Tensor, conditioning: Conditioning, *, tokens_after: int | None = None
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict the velocity from images and what `conditioning` returned; the rest as in `forward`."""
        patches = patchify(x_t, self.patch_size)  # (B, N, 3 P^2)
        tokens = self.x_embedder(patches)  # (B, N, D)
        wanted = tokens
        for number, (block, modulation) in enumerate(zip(self.blocks, conditioning.blocks, strict=True), start=1):
            tokens = block(tokens, modulation, self.rope)
            if number == tokens_after:
                wanted = tokens
            if self.intermediate is not None and number == self.intermediate_block:
                tokens = self.intermediate(patches, tokens, conditioning.t_emb)
        if self.head is not None:
            output = self.head(patches, tokens, conditioning.t_emb)  # (B, N, 3 P^2)
        else:
            assert self.final_layer is not None
            output = self.final_layer(tokens, conditioning.final)  # (B, N, 3 P^2)
        v = unpatchify(output, self.patch_size, self.grid_size)
        return v if tokens_after is None else (v, wanted)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters named `head.` or `intermediate.`, for their own learning rate; none for DiT-only."""
        for name, parameter in self.named_parameters():
            if name.startswith(("head.", "intermediate.")):
                yield parameter

    def _check(self, x_t: Tensor, t: Tensor, y: Tensor, tokens_after: int | None) -> None:
        expected = (CHANNELS, *(count * self.patch_size for count in self.grid_size))
        if tuple(x_t.shape[1:]) != expected:
            raise ValueError(f"x_t must have the shape (B, {', '.join(map(str, expected))}), got {tuple(x_t.shape)}")
        for name, tensor in (("t", t), ("y", y)):
            if tensor.shape != x_t.shape[:1]:
                raise ValueError(f"{name} must have one value per image, ({x_t.shape[0]},), got {tuple(tensor.shape)}")
        if tokens_after is not None and not 1 <= tokens_after <= len(self.blocks):
            raise ValueError(f"tokens_after must be a block from 1 to {len(self.blocks)}, got {tokens_after}")


def build_model(model: schema.Model, image_size: int, num_classes: int) -> DiP:
    """Make the model that params.yaml describes, with random weights from torch's global generator.

    Inside `with torch.device("meta"):` it is made without memory, to count parameters and operations; its
    constant tables are then empty too, so it cannot be given weights later.

    Args:
        model: The `model` section of a run.
        image_size: Height and width of the images in pixels.
        num_classes: Number of classes without the "no class" label.

    Raises:
        ValueError: Sizes that do not fit, or a name that no head or placement has; the message says which.
    """
    if image_size % model.patch_size:
        raise ValueError(
            f"image size {image_size} is not divisible by patch size {model.patch_size}; choose a patch size "
            "that divides it"
        )
    grid_size = (image_size // model.patch_size, image_size // model.patch_size)
    placement = PLACEMENTS.get(model.placement)
    if placement is None:
        raise ValueError(f"unknown placement {model.placement!r}, expected one of {', '.join(PLACEMENTS)}")
    has_head = model.head is not None and model.head.name != "none"
    if placement.intermediate and not has_head:
        raise ValueError(f"placement {model.placement!r} needs a head, and the model has none")
    if model.head_input not in ("patch", "image"):
        raise ValueError(f"unknown head_input {model.head_input!r}, expected patch or image")
    if model.head_input == "image" and not (has_head and HEADS.get(model.head.name) is UNetHead):
        raise ValueError("head_input: image (Figure 11) needs a head that runs on whole images: unet")

    intermediate, block = None, None
    if placement.intermediate:
        block = intermediate_block(model.depth, model.intermediate_block)
        intermediate = IntermediateInjection(_build_head(model, grid_size), model.patch_size, model.hidden_size)
    return DiP(
        grid_size=grid_size,
        num_classes=num_classes,
        patch_size=model.patch_size,
        hidden_size=model.hidden_size,
        depth=model.depth,
        num_heads=model.num_heads,
        qk_norm=model.qk_norm,
        label_embedding_std=model.label_embedding_std,
        head=_build_head(model, grid_size) if has_head and placement.last else None,
        intermediate=intermediate,
        intermediate_block=block,
    )


def _build_head(model: schema.Model, grid_size: tuple[int, int]) -> PatchDetailerHead:
    """Make and initialise the model's kind of head."""
    settings = model.head
    assert settings.name != "none"
    kind = HEADS.get(settings.name)
    if kind is None:
        raise ValueError(f"unknown head {settings.name!r}, expected one of {', '.join(HEADS)}")
    head = kind.from_params(settings, model, grid_size)
    initialize_head(head, settings.initialisation)
    return head
