"""One interface to the networks whose features the metrics compare, and extraction in batches.

Every network takes uint8 images (B, 3, H, W), as torch-fidelity's do, and returns `FEATURES`.

Shapes: n = number of images, B = batch, H/W = image, K = number of classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dip.files import sha256
from dip.progress import Progress

if TYPE_CHECKING:
    from typing_extensions import TypeIs


FEATURES = ("pool", "spatial", "logits")
"""What a network returns, all float32 of shape (B, dimension)."""


class ImageSet(Protocol):
    """uint8 images of shape (n, H, W, 3): an array, in memory or mapped, or files that are read by slices."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    @property
    def ndim(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Features:
    """Features of n images, all float32.

    Attributes:
        pool: For FID, precision and recall; shape (n, 2048) for Inception, (n, 64) for the photo network.
        spatial: For sFID; shape (n, 2023) or (n, 256).
        probabilities: For the Inception score, softmax of the logits; shape (n, 1008) or (n, K).
    """

    pool: NDArray[np.float32]
    spatial: NDArray[np.float32]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.pool)


@dataclass(frozen=True)
class Extractor:
    """A feature network and what a table has to say about it.

    Attributes:
        name: How tables name it.
        network: In evaluation mode; takes uint8 (B, 3, H, W), gives `FEATURES`.
        sha256: Checksum of the file of weights.
        verified: Whether it is the network of the ADM suite, by that checksum.
        image_size: The one image side it takes; None if it takes any.
    """

    name: str
    network: nn.Module
    sha256: str
    verified: bool
    image_size: int | None


def open_extractor(name: str, weights: str | Path | None = None) -> Extractor:
    """Load a feature network by its name in params.yaml.

    Args:
        name: "inception" (the ADM suite's) or "photo" (`dip.evaluation.photo_network`).
        weights: File of weights. Inception's may be None: then torch-fidelity's cache is looked up. Nothing is
            ever downloaded. Inception weights of another checksum are taken, named as unverified.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: An unknown name, no file for "photo", or a file that holds something else.
    """
    # torch-fidelity brings torchvision and takes seconds to import: only Inception needs it.
    if name == "inception":
        from dip.evaluation.inception import INCEPTION_SHA256, find_inception_weights, load_inception

        path = find_inception_weights(weights)
        checksum = sha256(path)
        verified = checksum == INCEPTION_SHA256
        title = "InceptionV3 (ADM)" if verified else f"InceptionV3 (unverified weights {checksum[:8]})"
        return Extractor(title, load_inception(path), checksum, verified, image_size=None)
    if name == "photo":
        if weights is None:
            raise ValueError("the photo network needs the file its training wrote: give `weights`")
        from dip.evaluation.photo_network import load_photo_network

        photo = load_photo_network(weights)
        title = f"photo network ({photo.num_classes} classes, {photo.image_size} px)"
        return Extractor(title, photo, sha256(weights), verified=False, image_size=photo.image_size)
    raise ValueError(f"unknown feature extractor {name!r}: expected 'inception' or 'photo'")


def extract(
    extractor: Extractor,
    images: ImageSet | Iterable[NDArray[np.uint8]],
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Features:
    """Features of images, in their order.

    Args:
        extractor: From `open_extractor`.
        images: uint8, shape (n, H, W, 3); or an iterable of such batches.
        batch_size: Images at once; batches of an iterable are split to it. Changes features by rounding only.
        device: Where the network runs, in float32 without TF32.
        progress: Whether to show a bar, for an array.

    Returns:
        Features in memory: 20 kB an image for Inception, 1 GB for 50,000.

    Raises:
        ValueError: No images, or images of another type or shape than the network takes.
    """
    batches = list(iterate_features(extractor, images, batch_size, device, progress))
    if not batches:
        raise ValueError("there are no images to extract features of")
    columns = zip(*((batch.pool, batch.spatial, batch.probabilities) for batch in batches), strict=True)
    return Features(*(np.concatenate(column) for column in columns))


def iterate_features(
    extractor: Extractor,
    images: ImageSet | Iterable[NDArray[np.uint8]],
    batch_size: int = 64,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Iterator[Features]:
    """As `extract`, one batch at a time, for sets whose features do not fit in memory."""
    network = extractor.network.to(device)
    bar = Progress("features", total=len(images), unit="image") if progress and _is_set(images) else None
    with bar or contextlib.nullcontext():
        for batch in _batches(images, batch_size):
            check_images(batch, extractor.image_size)
            tensor = torch.tensor(batch, device=device).permute(0, 3, 1, 2)  # (B, 3, H, W)
            with torch.inference_mode(), _exact_float32():
                named = dict(zip(FEATURES, network(tensor), strict=True))
                probabilities = torch.softmax(named["logits"], dim=1)
            yield Features(*(t.cpu().numpy() for t in (named["pool"], named["spatial"], probabilities)))
            if bar:
                bar.advance(len(batch))


def check_images(images: ImageSet, image_size: int | None = None, where: str = "images") -> None:
    """Raise ValueError unless `images` is uint8 (n, H, W, 3), of side `image_size` where that is given."""
    if images.dtype != np.uint8:
        raise ValueError(
            f"{where}: expected uint8 values in [0, 255], got {images.dtype}: scale, clip and round them first"
        )
    if images.ndim == 4 and images.shape[3] != 3 and images.shape[1] == 3:
        raise ValueError(f"{where}: expected (n, H, W, 3), got (n, 3, H, W) {images.shape}: transpose them first")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"{where}: expected colour images of shape (n, H, W, 3), got shape {images.shape}")
    if 0 in images.shape:
        raise ValueError(f"{where}: there are no images in an array of shape {images.shape}")
    if image_size is not None and images.shape[1:3] != (image_size, image_size):
        raise ValueError(
            f"{where}: expected {image_size} x {image_size} pixels, got {images.shape[1]} x {images.shape[2]}: this "
            "feature extractor takes only the resolution it was trained on"
        )


def _batches(images: ImageSet | Iterable[NDArray[np.uint8]], batch_size: int) -> Iterator[NDArray[np.uint8]]:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for array in [images] if _is_set(images) else images:
        for start in range(0, len(array), batch_size):
            yield array[start : start + batch_size]


def _is_set(images: ImageSet | Iterable[NDArray[np.uint8]]) -> TypeIs[ImageSet]:
    return hasattr(images, "shape")


@contextlib.contextmanager
def _exact_float32() -> Iterator[None]:
    """Full float32 products and repeatable algorithms on NVIDIA GPUs; earlier settings come back afterwards."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
