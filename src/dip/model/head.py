"""What every Patch Detailer Head is: patches and tokens in, patches out (section 3.3), and how it starts.

Shapes: B batch, N patches, P patch side, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn

if TYPE_CHECKING:
    from dip import schema

INITIALISATIONS = ("he_nonzero", "zero")


class PatchDetailerHead(nn.Module, ABC):
    """Base class of the heads; `output` is the layer that makes the pixels, alone in being zeroed."""

    output: nn.Linear | nn.Conv2d

    @classmethod
    @abstractmethod
    def from_params(cls, head: Any, model: schema.Model, grid_size: tuple[int, int]) -> Self:
        """Make the head that params.yaml describes.

        Args:
            head: The settings of this kind of head (`model.head`).
            model: The settings of the whole model: patch size, hidden size, q/k normalisation, head input.
            grid_size: Patches per column and per row of an image.
        """

    @abstractmethod
    def forward(self, patches: Tensor, tokens: Tensor, t_emb: Tensor) -> Tensor:
        """Refine the patches of a batch of images.

        Args:
            patches: Noisy patches p_i as `patchify` cuts them, shape (B, N, 3 P^2).
            tokens: Their tokens s_i, shape (B, N, D).
            t_emb: Timestep embedding, shape (B, D); only the coordinate head uses it.

        Returns:
            Predicted velocity of every patch, shape (B, N, 3 P^2).
        """


def initialize_head(head: PatchDetailerHead, initialisation: str) -> None:
    """Set the starting weights of a head.

    Args:
        head: The head, freshly made.
        initialisation: "he_nonzero": He (Kaiming normal) weights and zero biases in all linear layers and
            convolutions, the output layer included. "zero": PyTorch's default, and an output layer of zeros
            (PixNerd), so that the model starts by predicting 0.

    Raises:
        ValueError: No such initialisation.
    """
    if initialisation not in INITIALISATIONS:
        raise ValueError(
            f"unknown head initialisation {initialisation!r}, expected one of {', '.join(INITIALISATIONS)}"
        )
    # ASSUMPTION: the paper names no initialisation of the head. "he_nonzero" learned fastest in short trials
    # on small images; the lineage's choice, "zero", is kept for comparison.
    if initialisation == "he_nonzero":
        for module in head.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    else:
        nn.init.zeros_(head.output.weight)
        if head.output.bias is not None:
            nn.init.zeros_(head.output.bias)
