"""What `dip explain` says, and which results are taken over."""

from __future__ import annotations

import base64
import errno
import json
import re
from pathlib import Path

import pytest

from dip import adoption, cli
from dip.adoption import adopt
from dip.params import load
from dip.pipeline import Job, Pipeline
from dip.provenance import record


def make(job: Job) -> None:
    """Stand-ins for all files of a job."""
    for path in job.outputs.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path != job.provenance and not path.exists():
            path.write_text(f"content of {path}")
    record(job)


@pytest.fixture
def pipeline(workplace: Path) -> Pipeline:
    """All jobs of a run's metrics have been done."""
    pipeline = Pipeline(load())
    for job in pipeline.with_upstream([pipeline.find("evaluate", "dip")]):
        make(job)
    return pipeline


METRICS = "results/demo/runs/dip/metrics.json"


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    cli.main(["explain", *arguments])
    return capsys.readouterr().out


def test_says_what_it_was_made_with(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: a number could not be traced to parameters, code and inputs."""
    text = said(capsys, METRICS)
    assert "made by     evaluate dip" in text
    assert "results/demo/runs/dip/samples.npz  " in text
    assert "up to date" in text and "not up to date" not in text
    assert "runs.dip.model.depth: 2" not in text
    assert "runs.dip.model.depth: 2" in said(capsys, METRICS, "--parameters")


def test_says_why_it_is_stale(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: one would have to guess which edit makes days of training again."""
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("depth: 2, num_heads: 2", "depth: 3, num_heads: 2"))
    Path("data/photographs/coins.png").write_bytes(b"another photograph")
    text = said(capsys, METRICS)
    assert "not up to date:" in text
    assert "train dip\n      runs.dip.model.depth: was 2, is 3" in text
    assert "prepare photos\n      data/photographs/coins.png: has changed" in text
    text = said(capsys, "results/demo/runs/dit")
    assert "train dit has not made it" in text
    assert "it has not been done" in text


def test_weights_in_a_variable_that_is_not_set(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong: they would be called no input any more, as if somebody had edited the run."""
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("milestones: [2]}", "milestones: [2], init_from: $WEIGHTS}"))
    Path("given.safetensors").write_text("weights")
    monkeypatch.setenv("WEIGHTS", "given.safetensors")
    pipeline = Pipeline(load())
    for job in pipeline.with_upstream([pipeline.find("train", "dip")]):
        make(job)
    assert "not up to date" not in said(capsys, "results/demo/runs/dip/model.safetensors")
    monkeypatch.delenv("WEIGHTS")
    text = said(capsys, "results/demo/runs/dip/model.safetensors")
    assert "train dip\n      params.yaml: runs.dip.training.init_from is '$WEIGHTS', and the environment" in text
    assert "is no input any more" not in text


def test_reasons_are_told_once(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: in a fresh clone, a study would be thousands of lines that say the same of the same jobs."""
    lines = said(capsys, "results/demo", "results/demo/runs/dip").splitlines()
    titles = [line for line in lines if re.match(r" {4}\w+ [\w.]+$", line)]
    assert "    train dip" in titles
    assert len(titles) == len(set(titles))
    samples = lines.index("results/demo/runs/dip/samples.npz")
    assert lines[samples + 1 : samples + 6] == [
        "  sample dip has not made it",
        "  not up to date:",
        "    sample dip",
        "      it has not been done",
        "    photograph coins.png, photograph chelsea.png, prepare photos, train dip: see above",
    ]
    assert any(line.endswith(" more: see above") for line in lines)


def test_on_a_disk_that_may_only_be_read(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong: results in an archive could not be traced, for want of a place to remember checksums."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("dip.provenance.write_json", refuse)
    assert "made by     evaluate dip" in said(capsys, METRICS)


def test_file_that_no_job_makes(pipeline: Pipeline) -> None:
    """Wrong: a mistyped path would look like a file without a history."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["explain", "results/demo/runs/dip/metrisc.json"])
    assert "no job of params.yaml makes it; did you mean 'results/demo/runs/dip/metrics.json'?" in str(stop.value)


def test_part_of_a_dataset(pipeline: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: the largest files of all would have no history."""
    Path("data/photos/images-00000-0123456789ab.npy").write_bytes(b"images")
    assert "made by     prepare photos\n" in said(capsys, "data/photos/images-00000-0123456789ab.npy")
    with pytest.raises(SystemExit, match=r"no job of params\.yaml makes it"):
        cli.main(["explain", "data/photos/images-00001-0123456789ab.npy"])


def test_any_path_to_a_file_will_do(
    pipeline: Pipeline, workplace: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong: results on another disk, or a path that a shell has completed, would have no history."""
    link = tmp_path_factory.mktemp("home") / "dip"
    link.symlink_to(workplace)
    disk = tmp_path_factory.mktemp("disk") / "results"
    (workplace / "results").rename(disk)
    (workplace / "results").symlink_to(disk)
    for path in (workplace / METRICS, link / METRICS, f"results/../{METRICS}", f"../{workplace.name}/{METRICS}"):
        assert "made by     evaluate dip" in said(capsys, str(path)), path


def know(job: Job) -> None:
    """A record of Snakemake for each output."""
    for path in job.outputs.values():
        name = base64.urlsafe_b64encode(str(path).encode()).decode()
        place = Path(".snakemake/metadata") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"params": [repr(job.spec)], "input_checksums": {}}))


def test_only_unknown_results_that_are_current_are_taken_over(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: results that were pulled would be made again; or stale ones would be called up to date."""
    touched: list[list[str]] = []
    monkeypatch.setattr(adoption, "_touch", touched.append)
    there = pipeline.with_upstream([pipeline.find("evaluate", "dip")])
    assert adopt(pipeline) == len(there)
    assert {Path(path) for path in touched[-1]} == {next(iter(job.outputs.values())) for job in there}
    for job in there:
        know(job)
        for path in job.outputs.values():
            path.touch()  # in the order in which they are made
    assert adopt(pipeline) == 0
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("num_samples: 10", "num_samples: 8"))
    assert adopt(Pipeline(load())) == 0, "an edit is for Snakemake to plan"
    path.write_text(path.read_text().replace("num_samples: 8", "num_samples: 10"))
    Path("results/demo/runs/dip/samples.npz").write_text("other samples")
    for file in Path(".snakemake/metadata").iterdir():
        file.unlink()
    adopt(pipeline)
    assert "results/demo/runs/dip/model.safetensors" in touched[-1]
    assert not any("samples" in path or "metrics" in path for path in touched[-1]), "what follows from a changed file"
