"""Feature networks behind torch-fidelity's interface.

torch-fidelity takes seconds to import, so what the photo network does in this project does not go through here.

Shapes: B = batch, H/W = image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from dip.evaluation.features import FEATURES
from dip.evaluation.photo_network import load_photo_network


class AdmFeatures(FeatureExtractorBase):
    """A network that gives what the ADM suite compares: `pool` and `spatial` features and `logits`, all float32."""

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Names of the features, in the order a network returns them."""
        return FEATURES

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The feature torch-fidelity's own metrics use."""
        return {"isc": "logits", "fid": "pool", "kid": "pool", "prc": "pool"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Whether torch-fidelity may compile it: Inception's spatial features come by a hook, which would be lost."""
        return False


class PhotoFeatures(AdmFeatures):
    """The photo network for torch-fidelity's own metrics.

    `torch_fidelity.register_feature_extractor("photo", PhotoFeatures)` makes it known; then
    `torch_fidelity.calculate_metrics(..., feature_extractor="photo", feature_extractor_weights_path=...)`.
    """

    def __init__(
        self, name: str, features_list: Sequence[str], feature_extractor_weights_path: str, **kwargs: Any
    ) -> None:
        """Load the network; what torch-fidelity passes besides is not used."""
        super().__init__(name, list(features_list))
        self.network = load_photo_network(feature_extractor_weights_path)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The chosen features of uint8 images (B, 3, H, W); errors as in `PhotoNetwork`."""
        named = dict(zip(FEATURES, self.network(images), strict=True))
        return tuple(named[name] for name in self.features_list)
