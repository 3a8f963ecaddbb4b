"""What Snakemake asks of the jobs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from dip.params import load, parse
from dip.pipeline import Pipeline
from dip.pipeline.workflow import Workflow, failures

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def workflow() -> Workflow:
    """The shipped params.yaml."""
    return Workflow(Pipeline(load(REPOSITORY / "params.yaml")))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder without results."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("data/photos33/manifest.json", "nothing makes this file; did you mean 'data/photos32/manifest.json'?"),
        ("data/reference/photos32.npz", "nothing makes this file; did you mean 'data/references/photos32.npz'?"),
        ("results/demo/table2.xlsx", "nothing makes this file; did you mean 'results/demo/table2.tex'?"),
        ("results/demo/tabel2.xlsx", "no table or figure 'tabel2' of study 'demo'; did you mean 'table2'?"),
        ("results/demo/runs/demo_dip/metric.json", "did you mean 'results/demo/runs/demo_dip/metrics.json'?"),
        ("results/demo/runs/demo_hibryd/metrics", "there is no such run; did you mean 'demo_hybrid'?"),
        ("table2.csv", "table2.csv: a target is named from here, results/demo/table2.csv"),
        ("results/demo/runs/demo_dip/nope.json", "nothing makes this file; did you mean 'results/demo/runs/demo_dip/"),
    ],
)
def test_target_that_nothing_makes(workflow: Workflow, target: str, message: str) -> None:
    """Wrong: Snakemake only says that no rule makes it, not what was meant."""
    with pytest.raises(ValueError) as error:
        workflow.check(target)
    assert message in str(error.value)


def test_target_by_its_whole_path(workflow: Workflow, tmp_path: Path) -> None:
    """Wrong: no rule would make what a rule makes."""
    with pytest.raises(ValueError, match=r"table2\.csv: a target is named from here, results/demo/table2\.csv"):
        workflow.check(str(tmp_path / "results/demo/table2.csv"))
    workflow.check(str(tmp_path / "elsewhere/table2.csv"))


def test_failures_at_the_end() -> None:
    """Wrong: after hours of output nobody would find which of the jobs has failed; or one tried twice counts as two."""
    block = """
[Fri Nov 27 07:31:15 2026]
Error in rule train:
    message: None
    jobid: 19
    output: results/demo/runs/{run}/model.safetensors, results/demo/runs/{run}/params.json
    shell:
        dip train {run} --spec '{{"code_version":1}}' --launcher local
        (command exited with non-zero exit code)
Finished jobid: 23 (Rule: train)
"""
    once = "1 job has failed, for reasons that stand above in lines that begin with `dip`:\n"
    once += "  dip train wide, which makes results/demo/runs/wide/model.safetensors"
    assert failures(2 * block.format(run="wide")) == once
    assert (
        failures(block.format(run="wide") + block.format(run="deep")).splitlines()[0].startswith("2 jobs have failed")
    )
    assert failures("Error: Directory cannot be locked.\n") == ""


def test_what_can_be_asked_for(workflow: Workflow) -> None:
    """Wrong: a target or another word of the command line would be refused."""
    for job in workflow.pipeline.all_jobs():
        for file in job.outputs.values():
            workflow.check(str(file))
    for word in ("all", "figures", "--config", "study=demo", "results/demo", "data", "workflow/profiles/demo"):
        workflow.check(word)
    Path("results/demo").mkdir(parents=True)
    Path("results/demo/table2.xlsx").touch()
    workflow.check("results/demo/table2.xlsx")  # Snakemake has nothing to do


@pytest.mark.parametrize("place", ["weights", "weights/missing.pt"])
def test_weights_that_are_no_file_are_named_by_their_key(place: str) -> None:
    """Wrong: the plan would end in "Is a directory", of which nobody knows whose it is."""
    Path("weights").mkdir()
    run = f"\nruns:\n  from_weights: {{base: demo_dip, training: {{init_from: {place}}}}}\n"
    text = (REPOSITORY / "params.yaml").read_text().replace("\nruns:\n", run)
    target = SimpleNamespace(study="demo/", run="from_weights")
    with pytest.raises(ValueError) as error:
        Workflow(Pipeline(parse(text))).sources("train", target)
    assert str(error.value) == f"params.yaml: runs.from_weights.training.init_from: there is no file '{place}'"
