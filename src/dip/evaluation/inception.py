"""The Inception network of the ADM evaluation suite, with the spatial features sFID takes.

Shapes: B = batch, H/W = image.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from dip.evaluation.extractors import AdmFeatures

# The file torch-fidelity and pytorch-fid publish: the TensorFlow graph of 2015-12-05 that ADM uses, converted.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SPATIAL_CHANNELS = 7  # guided-diffusion, evaluator.py: `spatial = ...[..., :7]`


class AdmInceptionV3(AdmFeatures):
    """torch-fidelity's InceptionV3 with the three features of the ADM suite.

    Features: `pool` (B, 2048), `spatial` (B, 2023), the first 7 channels of `Mixed_6d.branch1x1` after batch norm
    and ReLU (17 x 17) flattened in the order H, W, C, and `logits` (B, 1008), without bias. All are float32.

    Args:
        weights: State dict of torch-fidelity's network, on the CPU.

    Raises:
        RuntimeError: The state dict has other names or shapes.
    """

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__("inception", self.get_provided_features_list())
        # torch-fidelity unpickles any file it is given; this buffer holds only the tensors read safely before.
        buffer = io.BytesIO()
        torch.save(weights, buffer)
        buffer.seek(0)
        self.inception = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], buffer)
        self.inception.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)
        self._spatial = torch.empty(0)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of uint8 images (B, 3, H, W) of any size, resized to 299 as TensorFlow 1 does."""
        pool, logits = self.inception(images)
        spatial = self._spatial.permute(0, 2, 3, 1).flatten(1)  # (B, 17 * 17 * 7)
        self._spatial = torch.empty(0)
        return pool, spatial.to(torch.float32), logits

    def _keep_spatial(self, module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS].clone()


def inception_cache() -> Path:
    """Where torch-fidelity keeps the weights: the checkpoints of torch.hub."""
    return Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]


def find_inception_weights(path: str | Path | None = None) -> Path:
    """`path`, or the file in torch-fidelity's cache where `path` is None; nothing is downloaded.

    Raises:
        FileNotFoundError: No such file; the message says where to get it and where to put it.
    """
    found = inception_cache() if path is None else Path(path)
    if not found.is_file():
        raise FileNotFoundError(
            f"no Inception weights at {found}: run `dip fetch` on a machine with internet that sees the same cache, or "
            f"save {URL_INCEPTION_V3} as {inception_cache()}, or name the file in the evaluation's `extractor.weights`"
        )
    return found


def load_inception(path: str | Path) -> AdmInceptionV3:
    """Build the network from a file of weights, without running any code the file may hold.

    Raises:
        ValueError: The file is not a state dict, or not one of torch-fidelity's InceptionV3.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return AdmInceptionV3(weights)
    except Exception as error:  # torch raises anything over a damaged file
        reason = str(error).partition("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's own message advises to trust the file
            reason = "cut short, a plain pickle, with code in it, or of another kind than torch.save writes"
        raise ValueError(
            f"{path} does not hold the weights of torch-fidelity's InceptionV3 ({URL_INCEPTION_V3}): {reason}"
        ) from error
