"""`evaluation:` of params.yaml: evaluators."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dip.schema.base import Count, Name, Schema, Seed, Text


class InceptionExtractor(Schema):
    """The ADM suite's InceptionV3, from a local file or from torch-fidelity's cache."""

    name: Literal["inception"]
    weights: Annotated[Text | None, Field(exclude=True)] = None


class PhotoExtractor(Schema):
    """A small classifier trained on a dataset of photographs: the demo's stand-in for Inception."""

    name: Literal["photo"]
    dataset: Name
    num_steps: Count = 300
    seed: Seed = 0


Extractor = Annotated[InceptionExtractor | PhotoExtractor, Field(discriminator="name")]


class FileReference(Schema):
    """A reference file of the ADM release, `VIRTUAL_*.npz`."""

    kind: Literal["file"]
    path: Annotated[Text | None, Field(exclude=True)] = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class HeldOutReference(Schema):
    """Crops of the region of every photograph that training never sees."""

    kind: Literal["held_out"]
    dataset: Name
    num_images: Count
    seed: Seed = 1


class DatasetReference(Schema):
    """All images of a prepared dataset, for the statistics; a spread of them for precision and recall."""

    kind: Literal["dataset"]
    dataset: Name
    num_images: Count = 10_000  # for precision and recall


Reference = Annotated[FileReference | HeldOutReference | DatasetReference, Field(discriminator="kind")]


class Evaluation(Schema):
    """An evaluator: features, reference and the number of samples it takes."""

    # For readers of params.yaml; results name their features and their reference themselves.
    title: Annotated[Text | None, Field(exclude=True)] = None
    image_size: Count
    extractor: Extractor
    reference: Reference
    num_samples: Count
    neighbours: Count = 3  # k of precision and recall
    inception_score_chunk: Count = 5000
