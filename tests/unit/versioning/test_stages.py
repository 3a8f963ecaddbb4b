"""The stages of DVC, written from the jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.parsing.context import Context

from dip import params
from dip.paths import StudyFolder
from dip.pipeline import Pipeline
from dip.versioning.build import profile_of, refresh
from dip.versioning.call import Call
from dip.versioning.stages import file_of, stage_files, stage_of, stages_of, write_stages

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """The shipped params.yaml, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return Pipeline(params.load(REPOSITORY / "params.yaml"))


def value(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def test_committed_stages_are_those_of_params(pipeline: Pipeline) -> None:
    """Wrong: `dvc repro` on a fresh clone would have to be called twice; run `dip stages` and commit."""
    write_stages(pipeline, "demo")
    for path in [*stage_files("demo"), StudyFolder("demo").params]:
        assert (REPOSITORY / path).read_text() == path.read_text(), f"{path} is not current"
    committed = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "studies/demo").rglob("dvc.yaml")}
    assert committed == set(stage_files("demo"))


@pytest.mark.parametrize("study", ["demo", "paper"])
def test_every_job_has_a_stage(pipeline: Pipeline, study: str) -> None:
    """Wrong: a result would not be recorded, or a stage would depend on other files or parameters than its job."""
    write_stages(pipeline, study)
    written, resolved = stages_of(study), json.loads(StudyFolder(study).params.read_text())
    jobs = pipeline.jobs(study)
    assert set(written) == {
        *(f"{file_of(job, study)}:{stage_of(job)}" for job in jobs),
        f"studies/{study}/dvc.yaml:recorded",
    }
    places = {name: place for place, name in enumerate(written)}
    for job in jobs:
        name = f"{file_of(job, study)}:{stage_of(job)}"
        stage, (tracked,) = written[name], written[name]["params"]
        assert [path for path in stage["deps"] if not path.endswith("built.txt")] == list(map(str, job.input_files))
        for key in tracked[f"studies/{study}/params.json"]:
            assert value(resolved, key) == job.parameters[key]
        outs = [next(iter(out)) for out in stage["outs"]]
        assert set(outs) == {str(path) for path in job.outputs.values()} or outs == [str(job.folder)]
        assert all(out[path]["persist"] for out, path in zip(stage["outs"], outs, strict=True))
        for needed in pipeline.upstream(job):
            assert places[f"{file_of(needed, study)}:{stage_of(needed)}"] < places[name], "single stages go in order"


def test_second_call_writes_nothing(pipeline: Pipeline) -> None:
    """Wrong: DVC would see changed files at every call."""
    write_stages(pipeline, "demo")
    before = {path: path.stat().st_mtime_ns for path in Path("studies").rglob("*")}
    assert not write_stages(pipeline, "demo")
    assert {path: path.stat().st_mtime_ns for path in Path("studies").rglob("*")} == before


def test_text_of_params_is_no_variable_of_dvc(pipeline: Pipeline) -> None:
    """Wrong: a label with `${` would stop every command of DVC in this repository."""
    text = (REPOSITORY / "params.yaml").read_text()
    label = "${patch} of ${16, \\${x}"
    edited = text.replace("label: DiP/8 (Convolutional U-Net)", f"label: '{label}'")
    assert edited != text
    write_stages(Pipeline(params.parse(edited)), "demo")
    (artifact,) = (
        artifact
        for path in stage_files("demo")
        if "${" in path.read_text()  # to parse all takes a second
        for artifact in yaml.safe_load(path.read_text()).get("artifacts", {}).values()
        if "${" in artifact["desc"]
    )
    resolved = Context(patch="a variable").resolve(artifact["desc"])
    assert resolved.startswith(f"{label}: EMA weights")


def of_run(run: str) -> set[str]:
    return {f"studies/demo/runs/{run}/dvc.yaml:{rule}" for rule in ("train", "sample", "evaluate")}


def test_runs_come_and_go(pipeline: Pipeline) -> None:
    """Wrong: stages of a run that is gone would be looked for; or nobody would be told of new ones."""
    write_stages(pipeline, "demo")
    text = (REPOSITORY / "params.yaml").read_text()
    renamed = Pipeline(params.parse(text.replace("demo_width48", "demo_wide")))
    (StudyFolder("demo").run("demo_width48").parent / "dvc.lock").write_text("")
    changes = write_stages(renamed, "demo")
    assert set(changes.gone) == of_run("demo_width48")
    assert of_run("demo_wide") < set(changes.others)
    assert "studies/demo/dvc.yaml:figure-figure10" in changes.others, "it has another input"
    assert not Path("studies/demo/runs/demo_width48").exists()


@pytest.mark.slow
def test_changes_are_told_to_whoever_calls_dvc(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: DVC reads stages when it starts; nobody would know of those that this call cannot record."""
    refresh(pipeline, "demo")
    monkeypatch.setattr("dip.versioning.build.current_call", lambda: Call((), 0.0))
    text = (REPOSITORY / "params.yaml").read_text()
    more = text.replace("[demo_mlp, demo_attention,", "[demo_mlp, demo_width48, demo_attention,")
    refresh(Pipeline(params.parse(more)), "demo")
    assert "has the earlier ones: run the same command again to record all" in caplog.text
    with pytest.raises(ValueError, match="still has those that are gone: run the same command again"):
        refresh(Pipeline(params.parse(text.replace("demo_width48", "demo_wide"))), "demo")


def test_a_renamed_study_takes_its_data_along(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: the study that is gone would still have the stages of the data, and DVC refuses two makers of a file."""
    monkeypatch.chdir(tmp_path)
    text = yaml.safe_dump(content)
    write_stages(Pipeline(params.parse(text)), "demo")
    before = set(map(stage_name, stages_of("demo")))
    write_stages(Pipeline(params.parse(text.replace("demo", "mini"))), "mini")
    assert set(map(stage_name, stages_of("mini"))) == before
    assert not Path("studies/demo").exists()


@pytest.mark.slow
def test_studies_that_share_photographs(pipeline: Pipeline) -> None:
    """Wrong: two stages would write one file, which DVC refuses altogether; or none would."""
    write_stages(pipeline, "demo")
    write_stages(pipeline, "small")
    demo, small = (set(map(stage_name, stages_of(study))) for study in ("demo", "small"))
    shared = {name for name in demo if name.startswith("photograph-")}
    assert len(shared) == 10
    assert not shared & small
    shutil.rmtree("studies/demo")
    write_stages(pipeline, "small")
    assert shared <= set(map(stage_name, stages_of("small")))


def stage_name(address: str) -> str:
    return address.rpartition(":")[2]


def test_profiles_stand_in_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a study would run where it should not, or nobody would know where to say it."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(REPOSITORY / "dvc.yaml", "dvc.yaml")
    assert [profile_of(study) for study in ("demo", "paper")] == ["workflow/profiles/demo", "slurm"]
    with pytest.raises(
        ValueError, match=r"dvc.yaml: no profile of Snakemake is set for study 'tiny'; add a line `tiny: "
    ):
        profile_of("tiny")
