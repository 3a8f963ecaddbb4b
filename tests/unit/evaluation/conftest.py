"""Crops of the photographs inside scikit-image and scikit-learn, and a photo network trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from dip.data.packaged import packaged
from dip.evaluation.features import Extractor
from dip.evaluation.photo_network import PhotoNetwork, load_photo_network, save_photo_network, train_photo_network

SIZE = 32


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests run beside others; small networks gain nothing from threads."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Crops:
    """Crops of `SIZE` pixels whose class is the photograph they come from."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@pytest.fixture(scope="session")
def photographs() -> list[NDArray[np.uint8]]:
    """Six photographs with rich texture, in half their size."""
    grey = [np.stack([getattr(data, name)()] * 3, axis=-1) for name in ("brick", "grass", "gravel")]
    colour = [data.astronaut(), data.coffee(), np.asarray(Image.open(packaged("flower")))]
    halved = []
    for photo in grey + colour:
        height, width = (side // 2 for side in photo.shape[:2])
        blocks = photo[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
        halved.append(blocks.mean(axis=(1, 3)).round().astype(np.uint8))
    return halved


@pytest.fixture(scope="session")
def crops(photographs) -> Crops:
    """3000 crops, classes in turn."""
    rng = np.random.default_rng(0)
    labels = np.arange(3000) % len(photographs)
    images = []
    for label in labels:
        photo = photographs[label]
        top, left = (rng.integers(side - SIZE + 1) for side in photo.shape[:2])
        images.append(photo[top : top + SIZE, left : left + SIZE])
    return Crops(np.stack(images), labels)


@pytest.fixture(scope="session")
def network(crops, session_folder: Path) -> PhotoNetwork:
    """A photo network trained on a sixth of the usual images, by one process for all."""
    path = session_folder / "network.safetensors"
    with FileLock(session_folder / "network.lock"):
        if not path.exists():
            images, labels = crops.images[:2000], crops.labels[:2000]
            trained = train_photo_network(images, labels, num_classes=6, num_steps=100, batch_size=32, seed=0)
            save_photo_network(trained, path)
    return load_photo_network(path)


@pytest.fixture(scope="session")
def extractor(network) -> Extractor:
    """The extractor of that network."""
    return Extractor("photo network", network, sha256="0" * 64, verified=False, image_size=SIZE)
