"""Feature networks behind torch-fidelity's interface, which its own metrics use too.

Shapes: B = batch, H/W = image, K = number of classes.
"""

from __future__ import annotations

import torch
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from dip.evaluation.photo_network import PhotoNetwork


class AdmFeatures(FeatureExtractorBase):
    """A network that gives what the ADM suite compares: `pool` and `spatial` features and `logits`, all float32."""

    def __init__(self, name: str) -> None:
        super().__init__(name, self.get_provided_features_list())

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Names of the features, in the order `forward` returns them."""
        return ("pool", "spatial", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The feature torch-fidelity's own metrics use."""
        return {"isc": "logits", "fid": "pool", "kid": "pool", "prc": "pool"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """Whether torch-fidelity may compile it: Inception's spatial features come by a hook, which would be lost."""
        return False


class PhotoFeatures(AdmFeatures):
    """The demo's feature network."""

    def __init__(self, network: PhotoNetwork) -> None:
        super().__init__("photo")
        self.network = network
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`pool`, `spatial` and `logits` of uint8 images (B, 3, H, W); errors as in `PhotoNetwork`."""
        return self.network(images)
