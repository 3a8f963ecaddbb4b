"""`runs:` of params.yaml, resolved.

A `Run` is made of nested parts, so that what a stage depends on is exactly what it is given:
`TrainingSpec` (data, model, training), `MilestoneSpec`, `SolverSpec`, `SamplingSpec`, `EvaluationSpec`, then `Run` with
its name.
"""

from __future__ import annotations

from typing import TypeVar

from dip.schema.base import Count, Name, Schema, Text
from dip.schema.datasets import Dataset
from dip.schema.evaluation import Evaluation
from dip.schema.models import Model
from dip.schema.training import Checkpoint, Sampling, Training

Spec = TypeVar("Spec", bound="TrainingSpec")


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

    @property
    def epochs(self) -> int:
        """Epochs of training behind the weights."""
        epoch = self.checkpoint.epoch if self.checkpoint else None
        return epoch or self.training.epochs

    @property
    def ema_decay(self) -> float:
        """EMA decay of the weights."""
        decay = self.checkpoint.ema_decay if self.checkpoint else None
        return self.training.ema_decay if decay is None else decay

    @property
    def is_milestone(self) -> bool:
        """Whether the weights are kept beside a training's result: of an earlier epoch or of another EMA decay."""
        ours, result = (self.epochs, self.ema_decay), (self.training.epochs, self.training.ema_decay)
        return self.checkpoint is not None and ours != result


class SolverSpec(MilestoneSpec):
    """All that the time for a sample depends on."""

    sampling: Sampling


class SamplingSpec(SolverSpec):
    """All that a set of samples depends on."""

    num_samples: Count


class EvaluationSpec(SamplingSpec):
    """All that the metrics of a run depend on."""

    evaluation_name: Name
    evaluation: Evaluation


class Run(EvaluationSpec):
    """One row of a table: a model, how it was trained, sampled and evaluated."""

    name: Name
    study: Name
    label: Text  # how tables and figures name it

    @property
    def training_run(self) -> str:
        """Name of the run whose training gave the weights."""
        return self.checkpoint.run if self.checkpoint else self.name
