"""The whole chain on tiny parameters, and what an edit of params.yaml plans after it."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest

from project import Project

EVERYTHING = {
    "prepare photos16",
    "feature_network photos16",
    "reference photos16",
    "train dit",
    "train dip",
    "milestone dip_ep1",
    *(f"{rule} {run}" for rule in ("sample", "evaluate", "latency") for run in ("dit", "dip", "dip_ep1")),
    "table table1",
    "table table2",
    "figure figure10",
}


def rows(project: Project, table: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(project.content(f"results/demo/{table}.csv").decode())))


def measured(project: Project, table: str) -> list[str]:
    return [row["run"] for row in rows(project, table) if row["source"] == "measured"]


def test_first_call_plans_everything(project: Project) -> None:
    """A job missing here is a file that nothing makes."""
    assert project.plan() == EVERYTHING


def test_chain_makes_tables_figures_and_grids(finished: Project) -> None:
    """Every promised file is there and is what its name says."""
    results = finished.folder / "results/demo"
    assert measured(finished, "table1") == ["dip_ep1"]
    assert measured(finished, "table2") == ["dit", "dip"]
    for table in ("table1", "table2"):
        assert "| " in (results / f"{table}.md").read_text()
        assert "\\begin{tabular}" in (results / f"{table}.tex").read_text()
    assert finished.content("results/demo/figure10.pdf").startswith(b"%PDF")
    assert finished.content("results/demo/figure10.png").startswith(b"\x89PNG")
    for run in ("dit", "dip", "dip_ep1"):
        assert finished.content(f"results/demo/runs/{run}/samples.png").startswith(b"\x89PNG")
        assert json.loads(finished.content(f"results/demo/runs/{run}/metrics.json"))["num_samples"] == 20
    assert not list(results.rglob("*.tmp*"))


def test_tables_say_how_measured_rows_were_obtained(finished: Project) -> None:
    """A row measured on 20 samples with the demo's features must not pass for one of the paper's protocol."""
    found = rows(finished, "table2")
    assert {row["source"] for row in found} == {"measured", "published"}
    for row in found:
        if row["source"] == "measured":
            assert row["num_samples"] == "20"
            assert "photo network" in row["feature_extractor"]
            assert row["device"]


def test_second_call_plans_nothing(finished: Project) -> None:
    """Whatever is planned here would be made again at every call."""
    assert finished.plan() == set()


# An edit of params.yaml, and all jobs that it may plan.
EDITS = {
    "training of one run": (
        "model: {base: dit}\n    training: {base: tiny}",
        "model: {base: dit}\n    training: {base: tiny, batch_size: 4}",
        # Run `dip` inherits from `dit`.
        EVERYTHING - {"prepare photos16", "feature_network photos16", "reference photos16"},
    ),
    "training of a run that others take weights from": (
        "training: {milestones: [1]}",
        "training: {milestones: [1], learning_rate: 2.0e-3}",
        EVERYTHING
        - {"prepare photos16", "feature_network photos16", "reference photos16"}
        - {"train dit", "sample dit", "evaluate dit", "latency dit"},
    ),
    "model of one run": (
        "label: DiP\n    model: {base: dip}",
        "label: DiP\n    model: {base: dip, head: {width: 8}}",
        EVERYTHING
        - {"prepare photos16", "feature_network photos16", "reference photos16"}
        - {"train dit", "sample dit", "evaluate dit", "latency dit"},
    ),
    "sampling of one run": (
        "checkpoint: {run: dip, epoch: 1}}",
        "checkpoint: {run: dip, epoch: 1}, sampling: {num_steps: 3}}",
        {"sample dip_ep1", "latency dip_ep1", "evaluate dip_ep1", "table table1"},
    ),
    "sampling of all runs": (
        "num_steps: 2, cfg_scale: 1.5",
        "num_steps: 2, cfg_scale: 1.6",
        {job for job in EVERYTHING if job.split()[0] in ("sample", "latency", "evaluate", "table", "figure")},
    ),
    "settings of a metric": (
        "num_samples: 20",
        "num_samples: 20\n    neighbours: 2",
        {job for job in EVERYTHING if job.split()[0] in ("evaluate", "table", "figure")},
    ),
    "reference": (
        "num_images: 20",
        "num_images: 24",
        {job for job in EVERYTHING if job.split()[0] in ("reference", "evaluate", "table", "figure")},
    ),
    "feature network": (
        "num_steps: 2}\n    reference",
        "num_steps: 3}\n    reference",
        {
            job
            for job in EVERYTHING
            if job.split()[0] in ("feature_network", "reference", "evaluate", "table", "figure")
        },
    ),
    "data": ("held_out", "held_out", EVERYTHING),
    "label": ("label: DiT-only", "label: DiT", {"table table2"}),
    "label of a run in a figure": ("label: DiP\n", "label: DiP/8\n", {"table table2", "figure figure10"}),
    "caption": ("caption: One training.", "caption: A training.", {"table table1"}),
    "panel": ("title: patch size", "title: patch", {"figure figure10"}),
    "version of the code": ("code_version: 1", "code_version: 2", EVERYTHING),
    "comment": ("code_version: 1", "# A remark.\ncode_version: 1  # Another.", set()),
    "order of keys": (
        "dit: {patch_size: 8, hidden_size: 16, depth: 2",
        "dit: {depth: 2, hidden_size: 16, patch_size: 8",
        set(),
    ),
    "order of runs": (
        "  dip_ep1: {label: DiP after one epoch, checkpoint: {run: dip, epoch: 1}}\n",
        "",
        set(),
    ),
    "number written otherwise": ("learning_rate: 1.0e-3", "learning_rate: 0.001", set()),
    "description of a study": ("The chain in a minute.}", "The chain.}", set()),
}


@pytest.fixture(scope="module")
def edited(_finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished project of this module, in which nothing is run: only its params.yaml changes."""
    return _finished.copy(tmp_path_factory.mktemp("edited") / "project")


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_plans_what_depends_on_it(edited: Project, what: str) -> None:
    """One job too few is a stale result, one too many may be days of a GPU."""
    before = edited.params
    old, new, expected = EDITS[what]
    try:
        if what == "data":
            edited.edit("crops_per_class: 8", "crops_per_class: 8\n    held_out: 0.3")
        elif what == "order of runs":
            edited.edit(old, "")
            edited.edit("runs:\n", f"runs:\n{old}")
        else:
            edited.edit(old, new)
        assert edited.plan() == expected
    finally:
        (edited.folder / "params.yaml").write_text(before)


def test_a_new_run_is_a_few_lines(finished: Project) -> None:
    """An ablation is data: a run and its name in a table give a row, with no code and nothing made twice."""
    finished.edit("  dip_ep1: {label", "  mlp: {base: dit, label: MLP, model: {head: {name: mlp}}}\n  dip_ep1: {label")
    finished.edit("Head: [dip]", "Head: [mlp, dip]")
    assert finished.plan() == {"train mlp", "sample mlp", "evaluate mlp", "latency mlp", "table table2"}
    models = finished.content("results/demo/runs/dip/model.safetensors")
    finished.make()
    assert measured(finished, "table2") == ["dit", "mlp", "dip"]
    assert finished.content("results/demo/runs/dip/model.safetensors") == models
    assert finished.plan() == set()


def test_report_holds_tables_figures_and_grids(finished: Project) -> None:
    """The report is one file that opens without this folder and without a network."""
    result = finished.snakemake("--report", "report.html")
    assert result.returncode == 0, result.stdout[-3000:]
    html = finished.content("report.html").decode()
    for name in ("table1.csv", "table2.csv", "figure10.png", "samples.png"):
        assert name in html
    assert "One training." in html
    assert not re.search(r"<script[^>]* src=[\"']https?:", html)
