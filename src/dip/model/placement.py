"""Where Patch Detailer Heads sit (section 3.4, Figures 5 and 8).

Post-hoc refinement: "placed only after the final DiT block". Intermediate injection: "inserted between DiT
blocks. The refined patch representations are then projected back and fed into the subsequent DiT blocks."
Hybrid injection: "both at an intermediate stage and at the end of the DiT".

Shapes: B batch, N patches, P patch side, D hidden size.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from dip.model.backbone import CHANNELS, initialize_linear
from dip.model.head import PatchDetailerHead


class Placement(NamedTuple):
    """Which heads a placement has; a model without a last head ends with the DiT's final layer."""

    intermediate: bool
    last: bool


# ASSUMPTION: without a last head the model ends as DiT-only does, and the hybrid's two heads share no weights, since
# what they see and make differs; the paper says neither.
PLACEMENTS = {
    "post_hoc": Placement(intermediate=False, last=True),
    "intermediate": Placement(intermediate=True, last=False),
    "hybrid": Placement(intermediate=True, last=True),
}


class IntermediateInjection(nn.Module):
    """A head between two DiT blocks: its patches, projected to D, are added to the tokens."""

    def __init__(self, head: PatchDetailerHead, patch_size: int, hidden_size: int) -> None:
        super().__init__()
        self.head = head
        # ASSUMPTION: "projected back" is one linear map of the refined patch, added to the tokens; it starts
        # like the patch embedding, which has the same task.
        self.proj = nn.Linear(CHANNELS * patch_size**2, hidden_size)
        initialize_linear(self.proj)

    def forward(self, patches: Tensor, tokens: Tensor, t_emb: Tensor) -> Tensor:
        """Inject the head's view of the patches (B, N, 3 P^2) into the tokens (B, N, D)."""
        return tokens + self.proj(self.head(patches, tokens, t_emb))


def intermediate_block(depth: int, block: int | None) -> int:
    """Number of DiT blocks before the intermediate head.

    Args:
        depth: Number of DiT blocks.
        block: The number asked for, or None.

    Raises:
        ValueError: The head would not sit between two blocks.
    """
    # ASSUMPTION: the paper does not say after which block; after half of them unless params.yaml tells.
    number = depth // 2 if block is None else block
    if not 1 <= number < depth:
        raise ValueError(
            "the intermediate head must sit between two blocks: intermediate_block must be from 1 to "
            f"depth - 1 = {depth - 1}, got {number}"
        )
    return number
