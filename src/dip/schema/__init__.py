"""The schema of params.yaml; `dip.params` reads the file into it."""

from dip.schema.base import Name, Schema
from dip.schema.datasets import Dataset, ImageFiles, ImageFolder, ImageNet, Photographs
from dip.schema.evaluation import (
    DatasetReference,
    Evaluation,
    Extractor,
    FileReference,
    HeldOutReference,
    InceptionExtractor,
    PhotoExtractor,
    Reference,
)
from dip.schema.experiments import Experiment, Manifold, Overfit, Theory
from dip.schema.models import AttentionHead, CoordinateHead, Head, MLPHead, Model, NoHead, UNetHead
from dip.schema.reports import Comparison, Figure, Gallery, Panel, Study, Table
from dip.schema.runs import EvaluationSpec, MilestoneSpec, Run, SamplingSpec, SolverSpec, TrainingSpec
from dip.schema.training import Alignment, Checkpoint, LogitNormal, Sampling, TimeShift, Timesteps, Training, Uniform


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


__all__ = [
    "Alignment",
    "AttentionHead",
    "Checkpoint",
    "Comparison",
    "CoordinateHead",
    "Dataset",
    "DatasetReference",
    "Evaluation",
    "EvaluationSpec",
    "Experiment",
    "Extractor",
    "Figure",
    "FileReference",
    "Gallery",
    "Head",
    "HeldOutReference",
    "ImageFiles",
    "ImageFolder",
    "ImageNet",
    "InceptionExtractor",
    "LogitNormal",
    "MLPHead",
    "Manifold",
    "MilestoneSpec",
    "Model",
    "NoHead",
    "Overfit",
    "Panel",
    "Params",
    "PhotoExtractor",
    "Photographs",
    "Reference",
    "Run",
    "Sampling",
    "SamplingSpec",
    "Schema",
    "SolverSpec",
    "Study",
    "Table",
    "Theory",
    "TimeShift",
    "Timesteps",
    "Training",
    "TrainingSpec",
    "UNetHead",
    "Uniform",
]
