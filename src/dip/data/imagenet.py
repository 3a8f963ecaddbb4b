"""ILSVRC2012 training images in folders by synset (`n01440764/*.JPEG`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from dip.data.crop import center_crop

if TYPE_CHECKING:
    from dip.schema import ImageNet


def find_images(name: str, dataset: ImageNet) -> tuple[list[Path], NDArray[np.int64], list[str]]:
    """All images, their labels (position of the synset in sorted order) and the synsets.

    Raises:
        ValueError: The source is not set or not there, or its counts are not those of params.yaml.
    """
    key = f"datasets.{name}.source"
    if dataset.source is None:
        raise ValueError(f"params.yaml: {key} is not set; give it the folder of the ILSVRC2012 training images")
    expanded = os.path.expandvars(dataset.source)
    folder = Path(expanded).expanduser()
    if "$" in expanded:
        raise ValueError(
            f"params.yaml: {key} is '{dataset.source}', and that environment variable is not set; point it at the "
            "folder of the ILSVRC2012 training images (n01440764/*.JPEG, ...), or write the folder into params.yaml"
        )
    if not folder.is_dir():
        raise ValueError(f"params.yaml: {key}: there is no folder '{folder}'")
    synsets = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if len(synsets) != dataset.num_classes:
        raise ValueError(
            f"{folder}: {len(synsets)} folders of classes, expected datasets.{name}.num_classes = {dataset.num_classes}"
        )
    files: list[Path] = []
    labels: list[int] = []
    for label, synset in enumerate(synsets):
        found = sorted(path for path in (folder / synset).iterdir() if path.is_file())
        if not found:
            raise ValueError(f"{folder / synset}: no images; every class needs at least one")
        files += found
        labels += [label] * len(found)
    if len(files) != dataset.num_images:
        raise ValueError(f"{folder}: {len(files)} images, expected datasets.{name}.num_images = {dataset.num_images}")
    return files, np.array(labels, np.int64), synsets


def write_crops(files: list[Path], image_size: int, array: NDArray[np.uint8]) -> None:
    """Decode and crop every file into `array`, uint8 of shape (num_images, image_size, image_size, 3).

    Raises:
        ValueError: A file cannot be decoded; it is named.
    """
    for index, path in enumerate(tqdm(files, desc="prepare", unit="image", mininterval=1, miniters=1)):
        try:
            with Image.open(path) as image:
                array[index] = center_crop(image.convert("RGB"), image_size)
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise ValueError(f"{path}: not a readable image ({error}); replace it and run again") from error
