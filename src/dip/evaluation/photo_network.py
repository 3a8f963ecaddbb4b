"""The demo's feature network: a small classifier of photographs, in the place Inception has in the ADM suite.

Its figures rank models of one dataset against each other; they are not comparable to Inception's.

Shapes: B = batch, C/H/W = image, K = number of classes.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from dip.files import atomic_write
from dip.progress import Progress

FORMAT = "dip photo network 1"  # the one key of the metadata: safetensors keeps no order among several
POOL_DIMENSION = 64
SPATIAL_SIZE = 8
# ASSUMPTION: 4 channels on an 8 x 8 grid, 256 numbers, so that the covariance of the demo's 500 samples keeps full
# rank; ADM takes 7 channels on 17 x 17 (2023 numbers) for 50,000 samples.
SPATIAL_CHANNELS = 4


class PhotoNetwork(nn.Module):
    """Five convolutions with batch norm, mean pooling and a linear classifier.

    Features: `pool` (B, 64), the pooled output of the last convolution; `spatial` (B, 256), the first 4 channels of
    the fourth convolution on an 8 x 8 grid, flattened in the order H, W, C; `logits` (B, K). All are float32.

    Args:
        image_size: Side of the square images it is trained on, a multiple of 4 of at least 16.
        num_classes: K, at least 2.
        settings: What `save` keeps about the training, beside these two.

    Raises:
        ValueError: An image size or a number of classes it cannot be built for.
    """

    def __init__(self, image_size: int, num_classes: int, settings: dict | None = None) -> None:
        super().__init__()
        if image_size < 16 or image_size % 4:
            raise ValueError(f"image_size must be a multiple of 4 of at least 16, got {image_size}")
        if num_classes < 2:
            raise ValueError(f"a classifier takes at least 2 classes, got {num_classes}")
        self.image_size = image_size
        self.num_classes = num_classes
        self.settings = {**(settings or {}), "image_size": image_size, "num_classes": num_classes}
        self.stem = nn.Sequential(
            _conv_bn_relu(3, 16, stride=1),
            _conv_bn_relu(16, 32, stride=2),
            _conv_bn_relu(32, 32, stride=1),
            _conv_bn_relu(32, 64, stride=2),
        )
        self.last = _conv_bn_relu(64, POOL_DIMENSION, stride=1)
        self.classifier = nn.Linear(POOL_DIMENSION, num_classes)
        self.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`pool`, `spatial` and `logits` of images.

        Args:
            images: uint8, shape (B, 3, image_size, image_size).

        Raises:
            ValueError: Another type, or another shape than the network was trained on.
        """
        expected = (3, self.image_size, self.image_size)
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != expected:
            raise ValueError(
                f"this photo network was trained on uint8 images of shape {expected}, got {images.dtype} of shape "
                f"{tuple(images.shape[1:])}: train one at the resolution of these images"
            )
        return self.features(images.float())

    def features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """`pool`, `spatial` and `logits` of float images (B, 3, H, W) in [0, 255]."""
        maps = self.stem(images / 127.5 - 1.0)  # (B, 64, H / 4, W / 4)
        grid = F.adaptive_avg_pool2d(maps[:, :SPATIAL_CHANNELS], SPATIAL_SIZE)
        spatial = grid.permute(0, 2, 3, 1).flatten(1)  # (B, 8 * 8 * 4)
        pool = self.last(maps).mean(dim=(2, 3))  # (B, 64)
        return pool, spatial, self.classifier(pool)


def train_photo_network(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer],
    num_classes: int,
    *,
    num_steps: int = 300,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    class_names: list[str] | None = None,
    progress: bool = False,
) -> PhotoNetwork:
    """Train a classifier on photographs, with AdamW and a one-cycle learning rate.

    The result is a function of the arguments alone (on one machine and number of threads). Flips, gain, grey and
    noise are drawn anew for every image: without them the classes of single photographs are told apart by their
    mean colour, and the features see little else.

    Args:
        images: uint8, shape (n, H, W, 3) with H = W.
        labels: Class of each image, shape (n,), in [0, num_classes).
        num_classes: K.
        num_steps: Training steps.
        batch_size: Images per step, drawn with replacement.
        learning_rate: Highest learning rate of the cycle.
        seed: Seed of weights, order and augmentation; the global generator is left as it was.
        class_names: Names of the classes, kept in the saved file.
        progress: Whether to show a bar.

    Raises:
        ValueError: Arrays of another type or shape, labels out of range, or a loss that is not finite.
    """
    _check_training_set(images, labels, num_classes)
    settings = {
        "class_names": class_names,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PhotoNetwork(images.shape[1], num_classes, settings)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=num_steps)
    targets = torch.from_numpy(np.asarray(labels, dtype=np.int64))
    network.train()
    bar = Progress("photo network", total=num_steps, unit="step") if progress else None
    with bar or contextlib.nullcontext():
        for step in range(num_steps):
            chosen = torch.randint(len(images), (batch_size,), generator=generator)
            batch = torch.from_numpy(images[chosen.numpy()]).permute(0, 3, 1, 2).float()  # (B, 3, H, W)
            logits = network.features(_augment(batch, generator))[2]
            loss = F.cross_entropy(logits, targets[chosen])
            if not torch.isfinite(loss):
                raise ValueError(f"the photo network's loss is {loss.item()} at step {step}: lower its learning rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if bar:
                bar.advance()
    network.requires_grad_(False)
    network.eval()
    return network


def save_photo_network(network: PhotoNetwork, path: str | Path) -> None:
    """Write weights and settings to a safetensors file, atomically; the same network gives the same bytes.

    Raises:
        OSError: The file cannot be written; an earlier one is left as it was.
    """
    metadata = {FORMAT: json.dumps(network.settings, sort_keys=True)}
    content = save(network.state_dict(), metadata)
    with atomic_write(path, "wb") as file:
        file.write(content)


def load_photo_network(path: str | Path) -> PhotoNetwork:
    """Read what `save_photo_network` wrote, ready for evaluation on the CPU.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not safetensors, or not a photo network of this version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no photo network at {path}: train it with `dip features {path.stem}`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it has no iterator)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): train the network again") from error
    if FORMAT not in metadata:
        raise ValueError(f"{path} is not a photo network: expected {FORMAT!r} in its metadata, got {sorted(metadata)}")
    try:
        settings = json.loads(metadata[FORMAT])
        network = PhotoNetwork(settings["image_size"], settings["num_classes"], settings)
        network.load_state_dict(state)
    except Exception as error:  # over forged metadata, json and torch raise anything
        raise ValueError(
            f"the weights in {path} do not fit the network its metadata names ({type(error).__name__}: {error}): train "
            f"it again with `dip features {path.stem}`"
        ) from error
    network.requires_grad_(False)
    return network


def _conv_bn_relu(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip, grey, gain and noise, each drawn per image; images are floats (B, 3, H, W) in [0, 255]."""

    def draw() -> torch.Tensor:
        return torch.rand(len(images), 1, 1, 1, generator=generator)

    images = torch.where(draw() < 0.5, images.flip(3), images)
    images = torch.where(draw() < 0.3, images.mean(dim=1, keepdim=True).expand_as(images), images)
    images = images * (0.7 + 0.6 * draw())
    noise = torch.randn(images.shape, generator=generator)
    return images + noise * (10.0 * draw())


def _check_training_set(images: NDArray, labels: NDArray, num_classes: int) -> None:
    """Raise ValueError where `images` and `labels` are not what `train_photo_network` expects."""
    shape = images.shape
    if images.dtype != np.uint8 or images.ndim != 4 or shape[3] != 3 or shape[1] != shape[2] or not len(images):
        raise ValueError(f"expected uint8 images of shape (n, H, H, 3), got {images.dtype} of shape {shape}")
    if np.shape(labels) != (len(images),):
        raise ValueError(f"expected one label for each of {len(images)} images, got shape {np.shape(labels)}")
    if np.min(labels) < 0 or np.max(labels) >= num_classes:
        raise ValueError(
            f"labels must lie in [0, {num_classes}), got {np.min(labels)} to {np.max(labels)}: is num_classes right?"
        )
