"""A few image files in the shape of ImageNet, and settings of datasets for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import encoded, picture

from dip.data import shards
from dip.data.decode import decode
from dip.paths import Store
from dip.schema import ImageFolder, ImageNet


@pytest.fixture
def files() -> dict[str, bytes]:
    """Two synsets, the later one first: three JPEGs (RGB, grey, CMYK) and two."""
    modes = {"n02110341": ("RGB", "L"), "n01440764": ("RGB", "L", "CMYK")}
    return {
        f"{synset}/{synset}_{number}.JPEG": encoded(picture(30, 20 + number, seed=number).convert(mode))
        for synset in modes
        for number, mode in enumerate(modes[synset])
    }


@pytest.fixture
def settings() -> Callable[..., ImageNet]:
    """Settings of a dataset for such files."""

    def make(source: Path | str | None, **changes: Any) -> ImageNet:
        content = {"kind": "imagenet", "image_size": 8, "num_classes": 2, "num_images": 5} | changes
        return ImageNet(source=None if source is None else str(source), **content)

    return make


@pytest.fixture
def own() -> Callable[..., ImageFolder]:
    """Settings of a dataset of other images."""

    def make(source: Path | str, **changes: Any) -> ImageFolder:
        content = {"kind": "folder", "image_size": 8, "num_classes": 2, "num_images": 5} | changes
        return ImageFolder(source=str(source), **content)

    return make


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two images of 8 x 8 to a shard."""
    monkeypatch.setattr(shards, "_SMALLEST_SHARD_BYTES", 2 * 8 * 8 * 3)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is decoded in this process."""
    seen: list[bytes] = []

    def watch(content: bytes, *arguments: Any, **options: Any) -> np.ndarray:
        seen.append(content)
        return decode(content, *arguments, **options)

    monkeypatch.setattr(shards, "decode", watch)
    return seen
