"""The whole chain on tiny parameters, and what an edit of params.yaml plans after it."""

from __future__ import annotations

import csv
import io
import json
import re

from project import REPOSITORY, Project, planned_jobs

EVERYTHING = {
    "photograph astronaut.png",
    "photograph coffee.png",
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
    assert planned_jobs(project.snakemake("--dry-run").stdout) == EVERYTHING, "the command says the same as its fork"


def test_chain_makes_tables_figures_and_grids(finished: Project) -> None:
    """Every promised file is there and is what its name says."""
    results = finished.folder / "results/demo"
    assert measured(finished, "table1") == ["dip_ep1"]
    assert measured(finished, "table2") == ["dit", "dip"]
    for table in ("table1", "table2"):
        assert "| " in (results / f"{table}.md").read_text()
        assert "<td" in (results / f"{table}.html").read_text()
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


def test_make_demo_ends_with_a_report_of_tables_figures_and_grids(finished: Project) -> None:
    """`make demo` would end in an error, or its report need this folder or a network."""
    # All of the Makefile's lines; only `setup` counts as done, which installs.
    result = finished.command("make", "--file", str(REPOSITORY / "Makefile"), "--old-file", "setup", "demo")
    assert result.returncode == 0, result.stdout[-3000:]
    assert "Nothing to be done (all" in result.stdout, "Snakemake would make something again"
    html = finished.content("results/demo/report.html").decode()
    for name in ("table1.html", "table2.html", "figure10.png", "samples.png"):
        assert name in html
    assert "One training." in html
    assert not re.search(r"<script[^>]* src=[\"']https?:", html)


def test_texts_of_params_yaml_in_the_report(finished: Project) -> None:
    """`make demo` would end in an error over braces in a label, and a caption in a list or in errors of docutils."""
    finished.edit("caption: One training.", 'caption: "(a) One_ training, |x| < 2."')
    finished.edit("label: DiP\n", 'label: "DiP, {x}"\n')
    finished.make()
    result = finished.snakemake("--report", "report.html")
    assert result.returncode == 0, result.stdout[-3000:]
    html = finished.content("report.html").decode()
    assert "<p>(a) One_ training, |x| &lt; 2.</p>" in html
    assert r"DiP, {\u2060x}" in html
