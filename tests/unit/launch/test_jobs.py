"""What a launcher runs: in which folder, from which inputs, with which weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dip.launch.jobs import EvaluationJob, LatencyJob, SamplingJob, TrainingJob, publish_milestone
from dip.launch.launcher import launch
from dip.paths import RunFolder, Store
from dip.schema import Alignment, EvaluationSpec, MilestoneSpec, Params, SamplingSpec, SolverSpec, TrainingSpec


def test_other_data_are_another_training(params: Params, job: TrainingJob) -> None:
    """Wrong: after preparing other data the old weights would be published."""
    manifest = Store.of("photos").manifest
    manifest.write_text(manifest.read_text() + "\n")
    assert TrainingJob.of("dip", job.target, job.spec).work != job.work


def test_another_encoder_is_another_training(job: TrainingJob) -> None:
    """Wrong: a training would go on aligned with other features than those it began with, or be published as theirs."""
    encoder = Path("dinov2.safetensors")
    alignment = Alignment(block=1, encoder_path=str(encoder))
    spec = job.spec.model_copy(update={"training": job.spec.training.model_copy(update={"alignment": alignment})})
    with pytest.raises(FileNotFoundError, match=r"there is no file dinov2\.safetensors .* Run `dip fetch`"):
        TrainingJob.of("dip", job.target, spec)
    folders = []
    for weights in ("some", "other"):
        encoder.write_text(weights)
        folders.append(TrainingJob.of("dip", job.target, spec).work)
    assert folders[0] != folders[1]


def test_missing_data_are_named(tmp_path: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a traceback where `dip prepare` was forgotten, or an empty work folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data/photos/manifest.json is missing; prepare it with `dip prepare photos`"):
        TrainingJob.of("dip", RunFolder.of("demo", "dip"), spec)
    assert not Path("work").exists()


def test_milestone_comes_from_the_training_it_names(params: Params, job: TrainingJob) -> None:
    """Wrong: the row of an early epoch would show the last one's weights, or train a second time."""
    early = params.runs["dip_ep2"].part(MilestoneSpec)
    target = RunFolder.of("demo", "dip_ep2")
    missing = "the weights of epoch 2 and EMA decay 0.5"

    def refused(why: str) -> None:
        with pytest.raises(ValueError, match=f"{missing} {why}"):
            publish_milestone(early, target)

    refused("are not there: 'dip' was not trained here with these parameters; run `dip train dip`$")
    job.work.mkdir(parents=True)
    refused("are not there yet; run `dip train dip`, which goes on$")
    kept = job.work / "milestone-0002.safetensors"
    kept.touch()
    with pytest.raises(ValueError, match=r"dip/model\.safetensors, beside which .* is missing; run `dip train dip`$"):
        publish_milestone(early, target)
    kept.unlink()
    assert not target.folder.exists()
    launch(job)
    publish_milestone(early, target)
    assert target.model.read_bytes() == (job.work / "milestone-0002.safetensors").read_bytes()
    (job.work / "milestone-0002.safetensors").unlink()
    refused(f"were removed; remove {job.work}, too, and run `dip train dip`, which makes them again$")
    assert target.model.read_bytes() != job.target.model.read_bytes()


@pytest.mark.parametrize("name", ["dip", "dip_2steps"])
def test_run_without_a_milestone_is_told_so(params: Params, name: str) -> None:
    """Wrong: a failed assertion instead of a message."""
    with pytest.raises(ValueError, match="takes no milestone"):
        publish_milestone(params.runs[name].part(MilestoneSpec), RunFolder.of("demo", name))


@pytest.mark.parametrize(
    ("stage", "part", "name", "message"),
    [
        (SamplingJob, SamplingSpec, "dip", r"/dip/model\.safetensors is missing; make it with `dip train dip`"),
        (LatencyJob, SolverSpec, "dip_2steps", r"/dip/model\.safetensors is missing; make it with `dip train dip`"),
        (
            SamplingJob,
            SamplingSpec,
            "dip_ep2",
            r"/dip_ep2/model\.safetensors is missing; make it with `dip milestone dip_ep2`",
        ),
        (EvaluationJob, EvaluationSpec, "dip", r"/dip/samples\.npz is missing; make it with `dip sample dip`"),
    ],
)
def test_missing_inputs_are_named(params: Params, stage: Any, part: Any, name: str, message: str) -> None:
    """Wrong: a job would wait in the queue for hours only to fail, or nobody know which command to call first."""
    with pytest.raises(ValueError, match=f"results/demo/runs{message}"):
        stage.of(name, RunFolder.of("demo", name), params.runs[name].part(part))


def test_missing_reference_is_named(params: Params) -> None:
    """Wrong: likewise, for what does not lie in the run's folder."""
    target = RunFolder.of("demo", "dip")
    target.folder.mkdir(parents=True)
    target.samples.touch()
    with pytest.raises(ValueError, match=r"photos\.npz is missing; make it with `dip reference photos`"):
        EvaluationJob.of("dip", target, params.runs["dip"].part(EvaluationSpec))
