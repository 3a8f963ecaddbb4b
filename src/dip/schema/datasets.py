"""`datasets:` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dip.schema.base import Count, Fraction, Name, Real, Schema, Seed, Text


class Photographs(Schema):
    """Random crops of photographs that ship with scikit-image and scikit-learn; one class per photograph."""

    kind: Literal["photographs"]
    image_size: Count
    photographs: Annotated[tuple[Name, ...], Field(min_length=2)]
    crops_per_class: Count
    box_filter: Count = 1  # the photograph is reduced by this factor before cropping
    held_out: Annotated[Real, Field(gt=0, lt=1)] = 0.25  # share of every photograph that no crop touches
    seed: Seed = 0

    @property
    def num_classes(self) -> int:
        return len(self.photographs)

    @property
    def num_images(self) -> int:
        return len(self.photographs) * self.crops_per_class


class ImageFiles(Schema):
    """What datasets that are decoded from image files share."""

    image_size: Count
    num_classes: Count
    num_images: Count
    # Read by the preparation only, so that moving the images re-runs nothing after it.
    source: Annotated[Text | None, Field(exclude=True)] = None
    max_skipped: Annotated[Fraction, Field(exclude=True)] = 0.001  # share of images that may be unreadable


class ImageNet(ImageFiles):
    """ILSVRC2012 training images, cropped as ADM does: orientation tags are ignored, classes are sorted synsets."""

    kind: Literal["imagenet"]
    num_classes: Count = 1000
    num_images: Count = 1_281_167


class ImageFolder(ImageFiles):
    """Any other images, with or without classes, turned upright by their orientation tags."""

    kind: Literal["folder"]


Dataset = Annotated[Photographs | ImageNet | ImageFolder, Field(discriminator="kind")]
