"""The schema of params.yaml; `dip.params` reads the file into it.

A `Run` is made of nested parts, so that what a stage depends on is exactly what it is given:
`TrainingSpec` (data, model, training), `MilestoneSpec`, `SamplingSpec`, `EvaluationSpec`, then `Run` with its name.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Spec = TypeVar("Spec", bound="TrainingSpec")
# A name that is part of a file name.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]


def _parse_scientific(value: Any) -> Any:
    """Read "1e-4" as a number: YAML 1.1 readers hand it over as text, YAML 1.2 readers as a number."""
    if isinstance(value, str) and value[:1].isdigit() and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            return value
    return value


Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Real = Annotated[float, BeforeValidator(_parse_scientific), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Fraction = Annotated[Real, Field(ge=0, le=1)]


class Schema(BaseModel):
    """A part of params.yaml: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def canonical(self) -> str:
        """The content as JSON with sorted keys: equal for equal parameters in any order."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    @classmethod
    def parse(cls, content: str) -> Self:
        """The inverse of `canonical`.

        Raises:
            pydantic.ValidationError: The JSON is not of this class.
        """
        return cls.model_validate_json(content)


# --- datasets ---------------------------------------------------------------------------------------------


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


class ImageNet(Schema):
    """ILSVRC2012 training images in folders by synset, cropped as ADM does."""

    kind: Literal["imagenet"]
    image_size: Count
    # Read by the preparation only, so that moving the images re-runs nothing after it.
    source: Annotated[Text | None, Field(exclude=True)] = None
    num_classes: Count = 1000
    num_images: Count = 1_281_167


Dataset = Annotated[Photographs | ImageNet, Field(discriminator="kind")]


# --- models -----------------------------------------------------------------------------------------------

Initialisation = Literal["he_nonzero", "zero"]


class UNetHead(Schema):
    """Convolutional U-Net, the paper's choice (section 3.4): `depth` stages, the first of `width` channels."""

    name: Literal["unet"]
    depth: Count
    width: Count
    initialisation: Initialisation = "he_nonzero"


class MLPHead(Schema):
    """Standard MLP (section 3.4)."""

    name: Literal["mlp"]
    initialisation: Initialisation = "he_nonzero"


class AttentionHead(Schema):
    """Intra-patch attention (section 3.4)."""

    name: Literal["attention"]
    depth: Count = 2
    width: Count = 64
    num_heads: Count = 4
    context_width: Count = 16
    initialisation: Initialisation = "he_nonzero"


class CoordinateHead(Schema):
    """Coordinate-based MLP (section 3.4; PixNerd)."""

    name: Literal["coordinate"]
    depth: Count = 4
    width: Count = 64
    expansion: Count = 2
    num_frequencies: Count = 8
    initialisation: Initialisation = "he_nonzero"


class NoHead(Schema):
    """DiT-only: the backbone's own final layer instead of a head."""

    name: Literal["none"]


Head = Annotated[UNetHead | MLPHead | AttentionHead | CoordinateHead | NoHead, Field(discriminator="name")]


class Model(Schema):
    """Backbone, head and where the head sits (sections 3.3 and 3.4)."""

    patch_size: Count
    hidden_size: Count
    depth: Count
    num_heads: Count
    head: Head
    placement: Literal["post_hoc", "intermediate", "hybrid"] = "post_hoc"
    intermediate_block: Count | None = None  # blocks before the intermediate head; half of them if not given
    head_input: Literal["patch", "image"] = "patch"  # Figure 11
    label_embedding_std: Positive = 0.02
    qk_norm: bool = True


# --- training, sampling, evaluation -----------------------------------------------------------------------


class LogitNormal(Schema):
    """t = sigmoid(n), n normal."""

    name: Literal["logit_normal"]
    mean: Real = 0.0
    std: Positive = 1.0


class Uniform(Schema):
    """t uniform in [0, 1]."""

    name: Literal["uniform"]


class TimeShift(Schema):
    """t uniform, then moved towards noise: t / (t + shift (1 - t))."""

    name: Literal["time_shift"]
    shift: Positive


Timesteps = Annotated[LogitNormal | Uniform | TimeShift, Field(discriminator="name")]


class Alignment(Schema):
    """Representation alignment (REPA) of one block's tokens with a frozen DINOv2."""

    weight: Positive = 0.5
    block: Count = 8
    encoder: Text = "vit_base_patch14_dinov2.lvd142m"
    encoder_path: Annotated[Text | None, Field(exclude=True)] = None  # where the weights lie changes no result


class Training(Schema):
    """AdamW, EMA and the objective."""

    epochs: Count
    milestones: tuple[Count, ...] = ()  # epochs whose EMA weights are kept for runs that name them
    batch_size: Count  # global, whatever the number of devices
    learning_rate: Positive
    head_learning_rate_scale: Positive = 1.0
    betas: tuple[Annotated[Real, Field(ge=0, lt=1)], Annotated[Real, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    schedule: Literal["constant", "cosine"] = "constant"
    gradient_clip: Positive | None = None
    ema_decay: Annotated[Real, Field(ge=0, lt=1)] = 0.9999
    label_dropout: Fraction = 0.1
    horizontal_flip: bool = True
    timesteps: Timesteps = LogitNormal(name="logit_normal")
    alignment: Alignment | None = None
    precision: Literal["bf16", "fp32"] = "bf16"
    log_every: Count = 100
    seed: Seed = 0


class Sampling(Schema):
    """From noise to images."""

    solver: Literal["euler"] = "euler"
    num_steps: Count
    cfg_scale: Annotated[Real, Field(ge=1)] = 1.0
    cfg_interval: tuple[Fraction, Fraction] = (0.0, 1.0)  # guidance where t lies in it; t = 0 is noise
    labels: Literal["balanced", "uniform"] = "balanced"
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: Seed = 0


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


Reference = Annotated[FileReference | HeldOutReference, Field(discriminator="kind")]


class Evaluation(Schema):
    """An evaluator: features, reference and the number of samples it takes."""

    title: Text  # how tables name it
    image_size: Count
    extractor: Extractor
    reference: Reference
    num_samples: Count
    neighbours: Count = 3  # k of precision and recall
    inception_score_chunk: Count = 5000


class Checkpoint(Schema):
    """The training whose weights a run samples with, instead of a training of its own."""

    run: Name
    epoch: Count | None = None  # one of its milestones; its last epoch if not given


# --- runs -------------------------------------------------------------------------------------------------


class TrainingSpec(Schema):
    """All that a training depends on."""

    code_version: int
    dataset_name: Name
    dataset: Dataset
    model: Model
    training: Training

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the data; the incomplete last one is dropped."""
        return self.dataset.num_images // self.training.batch_size

    @property
    def num_steps(self) -> int:
        return self.training.epochs * self.steps_per_epoch

    def part(self, spec: type[Spec]) -> Spec:
        """The part of these parameters that a stage depends on."""
        return spec(**{field: getattr(self, field) for field in spec.model_fields})


class MilestoneSpec(TrainingSpec):
    """All that the weights of a run depend on."""

    checkpoint: Checkpoint | None = None


class SamplingSpec(MilestoneSpec):
    """All that a set of samples depends on."""

    sampling: Sampling
    num_samples: Count

    @property
    def epochs(self) -> int:
        """Epochs of training behind the weights."""
        epoch = self.checkpoint.epoch if self.checkpoint else None
        return epoch or self.training.epochs


class EvaluationSpec(SamplingSpec):
    """All that the metrics of a run depend on."""

    evaluation_name: Name
    evaluation: Evaluation


class Run(EvaluationSpec):
    """One row of a table: a model, how it was trained, sampled and evaluated."""

    name: Name
    study: Name
    label: Text  # how tables and figures name it


class Study(Schema):
    """One scale of the same experiments."""

    title: Text
    description: Text


class Table(Schema):
    """Sections of a table, each a list of runs in the order of their rows."""

    caption: Text
    layout: Literal["table1", "table2", "table3"]  # whose columns it has
    published: bool = True  # whether the paper's own rows stand above the measured ones
    sections: Annotated[dict[Text, tuple[Name, ...]], Field(min_length=1)]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(run for runs in self.sections.values() for run in runs)


class Panel(Schema):
    """One pair of axes: a quantity of the runs against another."""

    title: Text
    x: Literal["head.depth", "head.width", "patch_size"]
    y: Literal["fid", "sfid", "gflops", "latency_seconds"]
    series: Annotated[dict[Text, Annotated[tuple[Name, ...], Field(min_length=1)]], Field(min_length=1)]


class Figure(Schema):
    """A figure made of panels."""

    caption: Text
    panels: Annotated[tuple[Panel, ...], Field(min_length=1)]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run for panel in self.panels for runs in panel.series.values() for run in runs))


class Params(Schema):
    """params.yaml, resolved."""

    study: Name
    code_version: int
    studies: dict[Name, Study]
    datasets: dict[Name, Dataset]
    evaluation: dict[Name, Evaluation]
    runs: dict[Name, Run]
    tables: dict[Name, dict[Name, Table]]
    figures: dict[Name, dict[Name, Figure]]
