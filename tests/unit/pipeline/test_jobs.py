"""The jobs of params.yaml: what they read, write and depend on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from dip import params
from dip.params import load
from dip.pipeline import Pipeline
from dip.pipeline.sources import Sources
from dip.provenance import record
from dip.schema import EvaluationSpec, Params, SamplingSpec, SolverSpec, TrainingSpec

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def shipped() -> Pipeline:
    return Pipeline(load(REPOSITORY / "params.yaml"))


def edited(text: str, old: str, new: str) -> Pipeline:
    assert text.count(old) >= 1
    return Pipeline(params.parse(text.replace(old, new)))


def test_every_job_writes_files_of_its_own(shipped: Pipeline) -> None:
    """Wrong: two jobs would write one file, and DVC and Snakemake would refuse or mix them up."""
    files = [path for job in shipped.all_jobs() for path in job.outputs.values()]
    assert len(files) == len(set(files))
    assert all(shipped.maker(path) is not None for path in files)


@pytest.mark.parametrize("study", ["paper", "small", "demo"])
def test_jobs_come_after_what_they_need(shipped: Pipeline, study: str) -> None:
    """Wrong: stages would be recorded before what they are made from, or a job would be missing."""
    jobs = shipped.jobs(study)
    places = {job.provenance: place for place, job in enumerate(jobs)}
    for place, job in enumerate(jobs):
        assert all(places[needed.provenance] < place for needed in shipped.upstream(job))
    assert len(jobs) == len(places) > 100


def test_spec_of_a_run_is_what_its_parameters_say(shipped: Pipeline) -> None:
    """Wrong: Snakemake, which knows the spec, and DVC, which knows the parameters, would differ."""
    parts = {"train": TrainingSpec, "sample": SamplingSpec, "latency": SolverSpec, "evaluate": EvaluationSpec}
    for rule, part in parts.items():
        job = shipped.find(rule, "demo_dip")
        spec = json.loads(job.spec)
        assert spec == json.loads(shipped.params.runs["demo_dip"].part(part).canonical())
        assert job.parameters == {
            key if key == "code_version" else f"runs.demo_dip.{key}": value for key, value in spec.items()
        }
        assert job.planned(job.spec) == job


def test_all_but_photographs_depend_on_the_version_of_the_code(shipped: Pipeline) -> None:
    """Wrong: a raised code_version would leave a result of the earlier code."""
    without = {job.rule for job in shipped.all_jobs() if "code_version" not in job.parameters}
    assert without == {"photograph"}


def test_where_images_lie_changes_no_parameter() -> None:
    """Wrong: moving ImageNet would make everything again."""
    text = (REPOSITORY / "params.yaml").read_text()
    moved = edited(text, "source: $IMAGENET", "source: /elsewhere")
    assert moved.find("table", "table2", "paper") == Pipeline(params.parse(text)).find("table", "table2", "paper")


def test_a_table_depends_on_its_own_published_rows(shipped: Pipeline) -> None:
    """Wrong: a corrected figure of Table 1 would write Table 3 again, or none."""
    for name in ("table1", "table2", "table3"):
        published = [key for key in shipped.find("table", name, "demo").parameters if key.startswith("published")]
        assert published == [f"published.{name}"]
    assert not any(key.startswith("published") for key in shipped.find("table", "cost", "demo").parameters)


def test_a_label_is_no_parameter_of_what_does_not_show_it(shipped: Pipeline) -> None:
    """Wrong: another name for a method would sample it again."""
    shown = {job.rule for job in shipped.jobs("demo") if any(key.endswith(".label") for key in job.parameters)}
    assert shown == {"table"}


@pytest.mark.parametrize(
    ("rule", "name", "keys"),
    [
        ("table", "table2", ("sections",)),
        ("figure", "ema", ("panels", 0, "series")),
        ("experiment", "figure3", ("series",)),
        ("experiment", "figure7", ("classes",)),
    ],
)
def test_an_order_that_is_seen_is_a_parameter(rule: str, name: str, keys: tuple[str | int, ...]) -> None:
    """Wrong: sections would stay where they were, and names of classes would stand beside images of others."""
    content = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    before = Pipeline(params_of(content)).find(rule, name, "demo")
    *above, last = keys
    place = content["tables" if rule == "table" else "figures"][name]["demo"]
    for key in above:
        place = place[key]
    place[last] = dict(reversed(place[last].items()))
    assert Pipeline(params_of(content)).find(rule, name, "demo").spec != before.spec


def test_layout_of_a_gallery_draws_no_samples() -> None:
    """Wrong: other columns, or more samples for the metrics, would draw every image of a gallery again."""
    text = (REPOSITORY / "params.yaml").read_text()
    before = Pipeline(params.parse(text))
    for old, new in (("columns: 4", "columns: 2"), ("num_samples: 50000", "num_samples: 40000")):
        after = edited(text, old, new)
        for figure in ("figure7", "figure9", "figure13"):
            assert after.find("experiment", figure, "paper") == before.find("experiment", figure, "paper"), old
    assert edited(text, "columns: 4", "columns: 2").find("figure", "figure9", "paper") != before.find(
        "figure", "figure9", "paper"
    )


def test_title_of_an_evaluator_is_no_parameter(shipped: Pipeline) -> None:
    """Wrong: another title, which no result shows, would evaluate every run again."""
    text = (REPOSITORY / "params.yaml").read_text()
    assert list(edited(text, "title: ADM Inception", "title: Inception").all_jobs()) == list(shipped.all_jobs())


def test_changed_photograph_changes_all_below_it(workplace: Path) -> None:
    """Wrong: after a failed job, what was made from the old photograph would pass for up to date."""
    pipeline = Pipeline(load())
    job, first = pipeline.find("evaluate", "dip"), pipeline.find("photograph", "coins.png")
    packaged = Sources(pipeline).spec(job)
    copy = first.outputs["image"]
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"another photograph")
    assert Sources(pipeline).spec(job) == packaged, "its own job has not been done: it will be replaced"
    record(first)
    assert Sources(pipeline).spec(job) != packaged


@pytest.mark.parametrize(
    "changes",
    [{"init_from": "weights.safetensors"}, {"alignment": {"block": 1, "encoder_path": "weights.safetensors"}}],
)
def test_weights_that_params_yaml_names_are_a_source(workplace: Path, changes: dict[str, object]) -> None:
    """Wrong: other weights under the same name would be another result unnoticed."""
    content = yaml.safe_load(Path("params.yaml").read_text().replace("image_size: 8", "image_size: 64"))
    content["runs"]["dip"]["training"] |= changes
    pipeline = Pipeline(params_of(content))
    job = pipeline.find("sample", "dip")
    specs = []
    for weights in (b"some", b"other"):
        Path("weights.safetensors").write_bytes(weights)
        specs.append(Sources(pipeline).spec(job))
    assert specs[0] != specs[1]
    assert "weights.safetensors" in specs[0]


def params_of(content: object) -> Params:
    return params.parse(yaml.safe_dump(content, sort_keys=False))
