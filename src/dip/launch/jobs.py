"""What a launcher runs: one class per stage. A job is handed to other processes and machines as it is, pickled."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from dip.files import atomic_copy, atomic_link, sha256
from dip.launch.folder import WorkFolder, this_job
from dip.memory import keep_freed_memory
from dip.paths import RunFolder, Store, given_path, reference, saved_steps, stage_folder, work_folder
from dip.progress import recorded
from dip.schema import EvaluationSpec, MilestoneSpec, SamplingSpec, SolverSpec, Training, TrainingSpec

_PATIENCE = 120  # seconds; a job that was requeued may start while what is left of it elsewhere is still ending


class JobFailedError(RuntimeError):
    """A job ended without a result; the message has the end of its log, or where it is."""


@dataclass(frozen=True)
class Job(ABC):
    """One stage of one run: what is done, in which work folder, and how it is known that it is done.

    The work writes each output under its own name into the work folder, the last one last; `publish` brings them to
    the run's folder, and `clear` removes what need not stay. So whatever ends a launcher, what the work has made stays
    until it lies in the run's folder with its provenance.

    Attributes:
        run: Name of the run.
        target: The run's folder.
        work: Folder of the work's state.
        spec: All that the result depends on.
        settings: What the stage's function takes besides, which changes no result.
    """

    stage: ClassVar[str]
    resumes: ClassVar[bool] = True  # whether it goes on where it was interrupted; else it starts anew
    decides: ClassVar[bool] = False  # whether `start` itself finds out, once for all processes, that the work is done
    run: str
    target: RunFolder
    work: Path
    spec: TrainingSpec
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    @abstractmethod
    def outputs(self) -> tuple[Path, ...]:
        """What the stage makes; others wait for the last one."""

    @abstractmethod
    def start(self) -> None:
        """Do the work, or go on where it stopped; called in every process of the job."""

    def check_processes(self, processes: int, key: str) -> None:
        """Refuse a number of processes that the work cannot be shared by.

        Args:
            processes: How many there will be.
            key: What sets their number, for the message.

        Raises:
            ValueError: It cannot be shared.
        """
        if processes > 1:
            raise ValueError(f"{key}: `dip {self.stage}` works in one process, not in {processes}")

    @property
    def task(self) -> dict[str, Any]:
        """What the work folder is for."""
        return {"run": self.run, "stage": self.stage, "parameters": json.loads(self.spec.canonical())}

    def finished(self) -> bool:
        """Whether the work folder has the result."""
        return (self.work / self.outputs[-1].name).exists()

    def kept(self) -> str:
        """What a call that goes on finds, for a message."""
        return f"what it has made stays in {self.work}"

    def publish(self) -> None:
        """Bring the result from the work folder to the run's folder, as often as it takes."""
        for output in self.outputs:
            atomic_link(self.work / output.name, output)

    def clear(self) -> None:
        """Remove the result, which is published, from the work folder; without its last file it is none."""
        for output in reversed(self.outputs):
            (self.work / output.name).unlink(missing_ok=True)

    def __call__(self, patience: float = _PATIENCE) -> None:
        """Work in this process, which may be one of several of the job; the first one holds the folder for all.

        Args:
            patience: Seconds to wait for another process to leave the folder.
        """
        from dip.training.distributed import Place

        logging.basicConfig(level=logging.INFO, format="%(message)s")
        folder = WorkFolder(self.work)
        with contextlib.ExitStack() as stack:
            if Place.of(os.environ).rank == 0:
                stack.enter_context(folder.working(patience))
                stack.enter_context(recorded(self.work / "progress.json"))
            if self.decides or not self.finished():
                stack.enter_context(_end_noted(folder))
                keep_freed_memory()
                self.start()

    def checkpoint(self) -> Any:
        """What submitit puts back into the queue before a preemption or a time limit."""
        from dip.launch.slurm import resubmission

        return resubmission(self)


@dataclass(frozen=True)
class TrainingJob(Job):
    """`dip train`."""

    stage = "train"
    decides = True

    @classmethod
    def of(cls, run: str, target: RunFolder, spec: TrainingSpec, **settings: Any) -> Self:
        """The training of a run.

        Raises:
            ValueError: The dataset is not prepared, or the weights to start from are not there.
            FileNotFoundError: The weights of the alignment's encoder are not there.
        """
        return cls(run, target, _training_folder(run, spec), spec, settings)

    @property
    def outputs(self) -> tuple[Path, ...]:
        return self.target.params, self.target.training_log, self.target.curves, self.target.model

    def start(self) -> None:
        from dip.training.loop import train

        train(self.spec, self.work, **self.settings)

    def check_processes(self, processes: int, key: str) -> None:
        """A batch is shared in equal parts."""
        from dip.training.distributed import Place, microbatches

        batch_size, place = self.spec.training.batch_size, Place(size=processes)
        try:
            microbatches(batch_size, place)
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from None
        microbatches(batch_size, place, self.settings.get("micro_batch"))

    def kept(self) -> str:
        """The last checkpoint."""
        step = max(saved_steps(self.work), default=None)
        return "no checkpoint yet" if step is None else f"its last checkpoint is of step {step} in {self.work}"

    def publish(self) -> None:
        """Copy: the weights stay beside the milestones, should Snakemake delete its outputs."""
        for output in self.outputs:
            atomic_copy(self.work / output.name, output)

    def clear(self) -> None:
        """Keep it: Snakemake deletes the outputs of jobs that it runs again, and a training is not done twice."""


@dataclass(frozen=True)
class _StageJob(Job):
    """A stage whose folder in work/ is named by its parameters and by what it reads."""

    @classmethod
    def of(cls, run: str, target: RunFolder, spec: Any, **settings: Any) -> Self:
        """The stage of a run.

        Raises:
            ValueError: One of the files that it reads is missing.
        """
        work = stage_folder(run, cls.stage, spec.canonical(), cls.inputs(run, target, spec))
        return cls(run, target, work, spec, settings)

    @staticmethod
    def inputs(run: str, target: RunFolder, spec: Any) -> dict[Path, str]:
        """What the stage reads, with the command that makes it: weights, unless it says otherwise."""
        weights = target.weights(spec)
        return {weights: f"dip milestone {run}" if spec.is_milestone else f"dip train {weights.parent.name}"}


@dataclass(frozen=True)
class SamplingJob(_StageJob):
    """`dip sample`."""

    stage = "sample"
    spec: SamplingSpec

    @property
    def outputs(self) -> tuple[Path, ...]:
        return self.target.grid, self.target.sampling, self.target.samples

    def start(self) -> None:
        from dip.sampling.generate import sample_run

        sample_run(self.spec, self.target.weights(self.spec), RunFolder(self.work), **self.settings)

    def check_processes(self, processes: int, key: str) -> None:
        """Any number of processes makes the shards."""

    def clear(self) -> None:
        """With the shards, should they have outlived their merging."""
        super().clear()
        for shards in self.work.glob("shards-*"):
            shutil.rmtree(shards, ignore_errors=True)


@dataclass(frozen=True)
class LatencyJob(_StageJob):
    """`dip latency`."""

    stage = "latency"
    resumes = False
    spec: SolverSpec

    @property
    def outputs(self) -> tuple[Path, ...]:
        return (self.target.latency,)

    def start(self) -> None:
        from dip.sampling.latency import measure_latency

        measure_latency(self.spec, self.target.weights(self.spec), RunFolder(self.work).latency, **self.settings)


@dataclass(frozen=True)
class EvaluationJob(_StageJob):
    """`dip evaluate`."""

    stage = "evaluate"
    resumes = False
    spec: EvaluationSpec

    @staticmethod
    def inputs(run: str, target: RunFolder, spec: EvaluationSpec) -> dict[Path, str]:
        """Samples and what they are compared with."""
        name = spec.evaluation_name
        return {target.samples: f"dip sample {run}", reference(name): f"dip reference {name}"}

    @property
    def outputs(self) -> tuple[Path, ...]:
        return self.target.scores, self.target.metrics

    def start(self) -> None:
        from dip.evaluation.stage import evaluate_run

        evaluate_run(self.spec, self.target, RunFolder(self.work))


def publish_milestone(spec: MilestoneSpec, target: RunFolder) -> None:
    """Copy weights that a training kept beside its result to the folder of the run that names them.

    Raises:
        ValueError: The run names none, or the weights are not there: the training has not come to them or is not
            done, or they were removed.
    """
    from dip.training.loop import milestone_path

    if spec.checkpoint is None or not spec.is_milestone:
        raise ValueError(
            f"{target.folder}: the run takes no milestone (params.yaml gives it no checkpoint with an earlier epoch or "
            "another ema_decay)"
        )
    work = _training_folder(spec.checkpoint.run, spec.part(TrainingSpec))
    source = milestone_path(work, spec.training, spec.epochs, spec.ema_decay)
    if not source.exists():
        raise ValueError(_why_missing(spec, spec.checkpoint.run, work, source))
    if not (trained := RunFolder(target.folder.parent / spec.checkpoint.run).model).exists():
        raise ValueError(
            f"{trained}, beside which the weights stand, is missing; run `dip train {spec.checkpoint.run}`"
        )
    atomic_copy(source, target.model)


def _why_missing(spec: MilestoneSpec, run: str, work: Path, source: Path) -> str:
    """What became of weights that a training keeps, and how to get them."""
    what = f"{source}: the weights of epoch {spec.epochs} and EMA decay {spec.ema_decay}"
    if (work / "model.safetensors").exists():
        return f"{what} were removed; remove {work}, too, and run `dip train {run}`, which makes them again"
    if work.exists():
        return f"{what} are not there yet; run `dip train {run}`, which goes on"
    return f"{what} are not there: '{run}' was not trained here with these parameters; run `dip train {run}`"


def _training_folder(run: str, spec: TrainingSpec) -> Path:
    manifest = Store.of(spec.dataset_name).manifest
    try:
        content = manifest.read_bytes()
    except OSError:
        raise ValueError(f"{manifest} is missing; prepare it with `dip prepare {spec.dataset_name}`") from None
    return work_folder(run, spec.canonical(), content, *map(sha256, _weights_of(run, spec.training)))


def _weights_of(run: str, training: Training) -> Iterator[Path]:
    """Files of weights that a training reads; other content is another training, in another folder."""
    if training.init_from is not None:
        key = f"runs.{run}.training.init_from"
        path = given_path(training.init_from, key, "the weights to start from")
        if not path.is_file():
            raise ValueError(f"params.yaml: {key}: there is no file '{path}'")
        yield path
    if training.alignment is not None:
        from dip.diffusion.alignment import find_weights

        yield find_weights(training.alignment.encoder, training.alignment.encoder_path)


@contextlib.contextmanager
def _end_noted(folder: WorkFolder) -> Iterator[None]:
    """Leave in the folder why the work ended without a result: a failure, or SIGTERM, after which it can go on."""
    job_id = this_job()
    folder.note("end", None)
    try:
        yield
    except (Exception, SystemExit) as error:
        terminated = isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM
        if terminated or isinstance(error, Exception):
            reason = None if terminated else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):
                if folder.read("end") is None:  # what comes after the first failure follows from it
                    folder.note("end", {"job_id": job_id, "terminated": terminated, "error": reason})
        raise
