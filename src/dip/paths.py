"""The only place that knows where a file lives. All paths are relative to the repository's folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dip.schema import MilestoneSpec

RESULTS = Path("results")
DATA = Path("data")
PHOTOGRAPHS, FEATURES, REFERENCES = DATA / "photographs", DATA / "features", DATA / "references"
WORK = Path("work")
STUDIES = Path("studies")
SNAKEMAKE = Path(".snakemake")
JOBS = Path("workflow/profiles/slurm/jobs.yaml")  # what SLURM jobs ask for
RUNS = "runs"  # the folder of a study's runs
REPORT = "report"  # where `make demo` has Snakemake's report, beside a study's tables and figures
PAPER = "paper"  # the study whose results stand at the top of results/


def study_prefix(study: str) -> str:
    """What stands between results/ and a target of the study: nothing for the paper's own."""
    return "" if study == PAPER else f"{study}/"


def study_folder(study: str) -> Path:
    """Tables, figures and runs of a study."""
    return RESULTS / study_prefix(study)


def provenance(stem: Path) -> Path:
    """What an artefact was made with: a file beside it, by the artefact's path without its ending."""
    return stem.with_name(f"{stem.name}.provenance.json")


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
        return cls(study_folder(study) / RUNS / run)

    @property
    def model(self) -> Path:
        """EMA weights, with the resolved parameters as metadata."""
        return self.folder / "model.safetensors"

    def weights(self, spec: MilestoneSpec) -> Path:
        """The weights that the run samples with: its own, or those of the training it names."""
        if spec.checkpoint is not None and not spec.is_milestone:
            return RunFolder(self.folder.parent / spec.checkpoint.run).model
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
    def curves(self) -> Path:
        """The numbers of the training log as CSV, a line per logged step: what DVC plots."""
        return self.folder / "training.csv"

    @property
    def samples(self) -> Path:
        """Samples in the ADM format: `arr_0`, uint8, NHWC."""
        return self.folder / "samples.npz"

    @property
    def sampling(self) -> Path:
        """What the samples were made with: weights, solver, guidance, seed, devices, versions."""
        return self.folder / "samples.json"

    @property
    def grid(self) -> Path:
        """A labelled grid of samples."""
        return self.folder / "samples.png"

    @property
    def metrics(self) -> Path:
        """FID, sFID, Inception Score, precision and recall."""
        return self.folder / "metrics.json"

    @property
    def scores(self) -> Path:
        """The numbers of metrics.json alone: what DVC shows."""
        return self.folder / "scores.json"

    @property
    def latency(self) -> Path:
        """Seconds for one image."""
        return self.folder / "latency.json"


@dataclass(frozen=True)
class StudyFolder:
    """The files by which DVC knows a study."""

    study: str

    @property
    def folder(self) -> Path:
        return STUDIES / self.study

    @property
    def params(self) -> Path:
        """All that the study's results depend on, resolved; DVC reads JSON a hundred times as fast as YAML."""
        return self.folder / "params.json"

    @property
    def stages(self) -> Path:
        """Stages of tables and figures."""
        return self.folder / "dvc.yaml"

    @property
    def data(self) -> Path:
        """Stages of photographs, datasets, feature networks and references."""
        return self.folder / "data" / "dvc.yaml"

    @property
    def runs(self) -> Path:
        """A folder for each run."""
        return self.folder / "runs"

    def run(self, run: str) -> Path:
        """Stages of a run."""
        return self.runs / run / "dvc.yaml"

    @property
    def built(self) -> Path:
        """Always the same content: what comes after it comes after Snakemake."""
        return self.folder / "built.txt"

    @property
    def known(self) -> Path:
        """Always the same content: what comes after it comes after a call that knows all stages."""
        return self.folder / "known.txt"

    @property
    def recorded(self) -> Path:
        """Always the same content: what comes after it comes after all stages."""
        return self.folder / "recorded.txt"

    @property
    def first(self) -> Path:
        """Written with the first stages of the study."""
        return SNAKEMAKE / "dip" / f"{self.study}.first"

    @property
    def changed(self) -> Path:
        """What to do where stages have changed since DVC read them."""
        return SNAKEMAKE / "dip" / f"{self.study}.changed"

    @property
    def last_build(self) -> Path:
        """For which parameters and jobs Snakemake had nothing left to do in this folder when it was last called."""
        return SNAKEMAKE / "dip" / f"{self.study}.build"


@dataclass(frozen=True)
class Store:
    """The files of one prepared dataset."""

    folder: Path

    @classmethod
    def of(cls, dataset: str) -> Store:
        """Folder of a dataset."""
        return cls(DATA / dataset)

    @property
    def manifest(self) -> Path:
        """Which files make up the store, with checksums; counts, class names, settings, and what was skipped."""
        return self.folder / "manifest.json"

    @property
    def skipped(self) -> Path:
        """Files that could not be read, where they were too many to go on."""
        return self.folder / "skipped.json"

    def shard(self, number: int, digest: str) -> Path:
        """uint8 array of shape (images of the shard, image_size, image_size, 3).

        Args:
            number: Which shard.
            digest: Hexadecimal checksum of what it is made from, so that shards of other settings lie beside it.
        """
        return self.folder / f"images-{number:05d}-{digest[:12]}.npy"

    def labels(self, digest: str) -> Path:
        """int64 array of shape (num_images,)."""
        return self.folder / f"labels-{digest[:12]}.npy"

    def index(self, digest: str) -> Path:
        """Where every image lies and where it came from, a line for each."""
        return self.folder / f"index-{digest[:12]}.csv"


def photograph_copy(file: str) -> Path:
    """Copy of a photograph of a Python package."""
    return PHOTOGRAPHS / file


def feature_network(evaluation: str) -> Path:
    """Weights of an evaluator's own feature network."""
    return FEATURES / f"{evaluation}.safetensors"


def reference(evaluation: str) -> Path:
    """Images and statistics that samples are compared with, in the layout of the ADM release."""
    return REFERENCES / f"{evaluation}.npz"


def given_path(text: str, key: str, what: str) -> Path:
    """A path that params.yaml gives, with its $VARIABLES and ~ replaced.

    Args:
        text: As it stands in params.yaml.
        key: Its key, for the message.
        what: What should lie there, for the message.

    Raises:
        ValueError: Environment variables are not set, or empty; all of them are named.
    """
    named = re.findall(r"\$(\w+|\{[^}]*\})", text)  # what `expandvars` replaces; a $ alone is part of a name
    if missing := [name for name in dict.fromkeys(part.strip("{}") for part in named) if not os.environ.get(name)]:
        names, are = " and ".join(missing), "variables {} are" if missing[1:] else "variable {} is"
        raise ValueError(
            f"params.yaml: {key} is '{text}', and the environment {are.format(names)} not set; point "
            f"{'them' if missing[1:] else 'it'} at {what}, or write the path into params.yaml"
        )
    return Path(os.path.expanduser(os.path.expandvars(text)))  # noqa: PTH111 - Path's refuses users it does not know


def work_folder(run: str, spec: str, manifest: bytes, *weights: str) -> Path:
    """State of a training in progress, outside every declared output, because Snakemake and DVC delete those.

    Args:
        run: Name of the run.
        spec: `TrainingSpec.canonical()`.
        manifest: Content of the dataset's manifest.
        weights: Checksums of the weights that the training reads: those that it starts from, those of its encoder.
    """
    content = spec.encode() + b"\0" + manifest + "".join(weights).encode()
    digest = hashlib.sha256(content).hexdigest()
    return WORK / f"{run}-{digest[:12]}"


def saved_steps(work: Path) -> list[int]:
    """Steps of the finished checkpoints of a training in progress, in order."""
    numbers = (path.stem.removeprefix("state-") for path in work.glob("state-*.json"))
    return sorted(int(number) for number in numbers if number.isdecimal())  # not "state-00000100 copy"


def stage_folder(run: str, stage: str, spec: str, inputs: Mapping[Path, str]) -> Path:
    """State of another stage of a run in progress; like Snakemake, it knows a file by its size and time.

    Args:
        run: Name of the run.
        stage: What is done, "sample" for example.
        spec: Canonical JSON of the parameters.
        inputs: Files that the stage reads, each with the command that makes it.

    Raises:
        ValueError: A file is missing.
    """
    digest = hashlib.sha256(spec.encode())
    for path, command in inputs.items():
        try:
            found = path.stat()
        except FileNotFoundError:
            raise ValueError(f"{path} is missing; make it with `{command}`") from None
        digest.update(f"\0{path}\0{found.st_size}\0{found.st_mtime_ns}".encode())
    return WORK / f"{run}-{stage}-{digest.hexdigest()[:12]}"
