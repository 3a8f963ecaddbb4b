"""The local launcher: one call at a time, nothing twice."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from dip.paths import RunFolder, Store
from dip.schema import MilestoneSpec, Params, TrainingSpec
from dip.training import launch as launcher
from dip.training.launch import launch, publish_milestone


@pytest.fixture
def params(workplace: Path) -> Params:
    from dip import params

    return params.load()


def work_folders() -> list[Path]:
    return sorted(Path("work").iterdir())


def never(*arguments: Any, **settings: Any) -> None:
    raise AssertionError("trained again")


def test_training_is_published_and_not_repeated(
    params: Params, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: results that Snakemake deleted would cost a new training."""
    target = RunFolder.of("demo", "dip")
    launch("dip", spec, target)
    published = target.model.read_bytes()
    with safe_open(target.model, framework="pt") as file:
        assert TrainingSpec.parse(file.metadata()["training"]) == spec
    monkeypatch.setattr(launcher, "train", never)
    for path in target.folder.iterdir():
        path.unlink()
    launch("dip", spec, target)
    assert target.model.read_bytes() == published
    assert sorted(path.name for path in target.folder.iterdir()) == [
        "model.safetensors",
        "params.json",
        "training.jsonl",
    ]


def test_second_call_in_the_same_folder_waits_and_trains_nothing(
    params: Params, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: two processes would write each other's checkpoints, or a restarted workflow would fail."""
    target, original, calls = RunFolder.of("demo", "dip"), launcher.train, []
    second = threading.Thread(target=launch, args=("dip", spec, target), daemon=True)

    def train(*arguments: Any, **settings: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            second.start()
            second.join(timeout=1)
            assert second.is_alive()
        original(*arguments, **settings)

    monkeypatch.setattr(launcher, "train", train)
    launch("dip", spec, target)
    second.join(timeout=30)
    assert not second.is_alive()
    assert len(calls) == 1
    assert "another process trains in work/dip-" in caplog.text


def test_failed_training_publishes_nothing(params: Params, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: half a result would look like a whole one."""

    def train(spec: TrainingSpec, work: Path, **settings: Any) -> None:
        (work / "training.jsonl").write_text("{}")
        raise RuntimeError("stopped")

    monkeypatch.setattr(launcher, "train", train)
    with pytest.raises(RuntimeError, match="stopped"):
        launch("dip", spec, RunFolder.of("demo", "dip"))
    assert not Path("results").exists()


def test_other_data_are_another_training(params: Params, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: after preparing other data the old weights would be published."""
    trained: list[Path] = []
    monkeypatch.setattr(launcher, "train", lambda spec, work, save_seconds: trained.append(work))
    monkeypatch.setattr(launcher, "publish", lambda work, target: None)
    manifest = Store.of("photos").manifest
    launch("dip", spec, RunFolder.of("demo", "dip"))
    manifest.write_text(manifest.read_text() + "\n")
    launch("dip", spec, RunFolder.of("demo", "dip"))
    assert len(set(trained)) == 2


def test_missing_data_are_named(tmp_path: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a traceback where `dip prepare` was forgotten, or an empty work folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"data/photos/manifest.json is missing; prepare it with `dip prepare photos`"):
        launch("dip", spec, RunFolder.of("demo", "dip"))
    assert not Path("work").exists()


def test_milestone_comes_from_the_training_it_names(params: Params, spec: TrainingSpec) -> None:
    """Wrong: the row of an early epoch would show the last one's weights, or train a second time."""
    early = params.runs["dip_ep2"].part(MilestoneSpec)
    target = RunFolder.of("demo", "dip_ep2")
    with pytest.raises(ValueError, match=r"the weights of epoch 2 are gone; train 'dip' again"):
        publish_milestone(early, target)
    assert not target.folder.exists()
    launch("dip", spec, RunFolder.of("demo", "dip"))
    publish_milestone(early, target)
    (work,) = work_folders()
    assert target.model.read_bytes() == (work / "milestone-0002.safetensors").read_bytes()
    assert target.model.read_bytes() != RunFolder.of("demo", "dip").model.read_bytes()


@pytest.mark.parametrize("name", ["dip", "dip_2steps"])
def test_run_without_a_milestone_is_told_so(params: Params, name: str) -> None:
    """Wrong: a failed assertion instead of a message."""
    with pytest.raises(ValueError, match="takes no milestone"):
        publish_milestone(params.runs[name].part(MilestoneSpec), RunFolder.of("demo", name))
