"""The only place that knows where a file lives. All paths are relative to the repository's folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dip.schema import SamplingSpec

RESULTS = Path("results")
DATA = Path("data")
WORK = Path("work")
PAPER = "paper"  # the study whose results stand at the top of results/


def study_prefix(study: str) -> str:
    """What stands between results/ and a target of the study: nothing for the paper's own."""
    return "" if study == PAPER else f"{study}/"


def study_folder(study: str) -> Path:
    """Tables, figures and runs of a study."""
    return RESULTS / study_prefix(study)


def experiment_data(study: str, figure: str) -> Path:
    """What the figure of an experiment is drawn from."""
    return study_folder(study) / f"{figure}.npz"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    folder: Path

    @classmethod
    def of(cls, study: str, run: str) -> RunFolder:
        """Folder of a run."""
        return cls(study_folder(study) / "runs" / run)

    @property
    def model(self) -> Path:
        """EMA weights, with the resolved parameters as metadata."""
        return self.folder / "model.safetensors"

    def weights(self, spec: SamplingSpec) -> Path:
        """The weights that the run samples with: its own, or those of the training it names."""
        checkpoint = spec.checkpoint
        if checkpoint is not None and checkpoint.epoch in (None, spec.training.epochs):
            return RunFolder(self.folder.parent / checkpoint.run).model
        return self.model

    @property
    def params(self) -> Path:
        """Resolved parameters, git revision, package versions and device of the training."""
        return self.folder / "params.json"

    @property
    def training_log(self) -> Path:
        """One JSON object per logged step."""
        return self.folder / "training.jsonl"

    @property
    def samples(self) -> Path:
        """Samples in the ADM format: `arr_0`, uint8, NHWC."""
        return self.folder / "samples.npz"

    @property
    def grid(self) -> Path:
        """A labelled grid of samples."""
        return self.folder / "samples.png"

    @property
    def metrics(self) -> Path:
        """FID, sFID, Inception Score, precision and recall."""
        return self.folder / "metrics.json"

    @property
    def latency(self) -> Path:
        """Seconds for one image."""
        return self.folder / "latency.json"


@dataclass(frozen=True)
class Store:
    """The files of one prepared dataset."""

    folder: Path

    @classmethod
    def of(cls, dataset: str) -> Store:
        """Folder of a dataset."""
        return cls(DATA / dataset)

    @property
    def images(self) -> Path:
        """uint8 array of shape (num_images, image_size, image_size, 3)."""
        return self.folder / "images.npy"

    @property
    def labels(self) -> Path:
        """int64 array of shape (num_images,)."""
        return self.folder / "labels.npy"

    @property
    def manifest(self) -> Path:
        """Counts, class names, settings and checksums."""
        return self.folder / "manifest.json"


def feature_network(evaluation: str) -> Path:
    """Weights of an evaluator's own feature network."""
    return DATA / "features" / f"{evaluation}.safetensors"


def reference(evaluation: str) -> Path:
    """Images and statistics that samples are compared with, in the layout of the ADM release."""
    return DATA / "references" / f"{evaluation}.npz"


def work_folder(run: str, spec: str, manifest: bytes) -> Path:
    """State of a training in progress, outside every declared output, because Snakemake and DVC delete those.

    Args:
        run: Name of the run.
        spec: `TrainingSpec.canonical()`.
        manifest: Content of the dataset's manifest.
    """
    digest = hashlib.sha256(spec.encode() + b"\0" + manifest).hexdigest()
    return WORK / f"{run}-{digest[:12]}"
