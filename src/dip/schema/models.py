"""`models:` of params.yaml: backbone, head and placement."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dip.schema.base import Count, Positive, Schema

Initialisation = Literal["he_nonzero", "zero"]


class UNetHead(Schema):
    """Convolutional U-Net, the paper's choice (section 3.4): `depth` stages, the first of `width` channels."""

    name: Literal["unet"]
    depth: Count
    width: Count
    initialisation: Initialisation = "he_nonzero"


class MLPHead(Schema):
    """Standard MLP (section 3.4)."""

    name: Literal["mlp"]
    initialisation: Initialisation = "he_nonzero"


class AttentionHead(Schema):
    """Intra-patch attention (section 3.4)."""

    name: Literal["attention"]
    depth: Count = 2
    width: Count = 64
    num_heads: Count = 4
    context_width: Count = 16
    initialisation: Initialisation = "he_nonzero"


class CoordinateHead(Schema):
    """Coordinate-based MLP (section 3.4; PixNerd)."""

    name: Literal["coordinate"]
    depth: Count = 4
    width: Count = 64
    expansion: Count = 2
    num_frequencies: Count = 8
    initialisation: Initialisation = "he_nonzero"


class NoHead(Schema):
    """DiT-only: the backbone's own final layer instead of a head."""

    name: Literal["none"]


Head = Annotated[UNetHead | MLPHead | AttentionHead | CoordinateHead | NoHead, Field(discriminator="name")]


class Model(Schema):
    """Backbone, head and where the head sits (sections 3.3 and 3.4)."""

    patch_size: Count
    hidden_size: Count
    depth: Count
    num_heads: Count
    head: Head
    placement: Literal["post_hoc", "intermediate", "hybrid"] = "post_hoc"
    intermediate_block: Count | None = None  # blocks before the intermediate head; half of them if not given
    head_input: Literal["patch", "image"] = "patch"  # Figure 11
    label_embedding_std: Positive = 0.02
    qk_norm: bool = True
