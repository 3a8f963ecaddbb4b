"""Reading params.yaml: inheritance, and one line with the key's path for every mistake."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dip import params
from dip.schema import (
    Alignment,
    FileReference,
    InceptionExtractor,
    LogitNormal,
    Params,
    Run,
    SamplingSpec,
    Schema,
    TrainingSpec,
)

Content = dict[str, Any]
Load = Callable[..., Params]


def put(content: Content, keys: str, value: Any) -> None:
    """Set `content["a"]["b"]` for keys "a.b"; the value DELETE removes it."""
    *parents, last = keys.split(".")
    for key in parents:
        content = content[key]
    if value is DELETE:
        del content[last]
    else:
        content[last] = value


DELETE = object()
TREE = {"kind": "manifold", "caption": "c", "num_steps": 2, "batch_size": 1, "num_images": 1}
TREE |= {"learning_rate": {"patch": 1.0, "image": 1.0}}
PANEL = {"title": "a", "x": "patch_size", "y": "fid", "series": {"s": ["dip"]}}


def mistakes(load: Load, content: Content | str, study: str | None = None) -> list[str]:
    """The lines of the error, without the name of the file."""
    with pytest.raises(params.ParamsError) as error:
        load(content, study)
    lines = str(error.value).splitlines()
    assert all("params.yaml: " in line for line in lines)
    return [line.split("params.yaml: ", 1)[1] for line in lines]


# --- mistakes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "value", "where", "what"),
    [
        ("models.dit.patchsize", 4, "models.dit.patchsize", "unknown key; did you mean 'patch_size'?"),
        ("models.dip.head.widht", 4, "models.dip.head.widht", "unknown key; did you mean 'width'?"),
        ("models.dit.bsae", "dip", "models.dit.bsae", "unknown key; did you mean 'base'?"),
        ("runs.dip.model.bsae", "dit", "runs.dip.model.bsae", "unknown key; did you mean 'base'?"),
        ("figures.figure10.demo.bsae", "theory", "figures.figure10.demo.bsae", "unknown key; there are caption"),
        ("runs.dip.model.dept", 4, "runs.dip.model.dept", "unknown key; did you mean 'depth'?"),
        ("runs.dip.sample", 4, "runs.dip.sample", "unknown key"),
        ("runs.deep.model.head", {"width": "x"}, "runs.deep.model.head.width", "integer"),
        ("runz", {}, "runz", "unknown key"),
        ("studies.demo.colour", "red", "studies.demo.colour", "unknown key; there are base, title, description"),
        ("figures.figure10.demo.panels", [PANEL | {"z": 1}], "figures.figure10.demo.panels.0.z", "there are title, x"),
        ("training.short.alignment", {"wieght": 1}, "training.short.alignment.wieght", "did you mean 'weight'?"),
        ("models.dit.depth", "two", "models.dit.depth", "integer"),
        ("models.dit.depth", 2.0, "models.dit.depth", "integer"),
        ("models.dit.depth", True, "models.dit.depth", "integer"),
        ("models.dit.depth", 0, "models.dit.depth", "greater than or equal to 1"),
        ("models.dit.depth", 10**60, "models.dit.depth", "less than or equal to 1000000000"),
        ("models.dip.head.depth", 10**9, "models.dip.head.depth", "1000000000 stages halve the patch"),
        ("training.short.warmup_steps", 10**60, "training.short.warmup_steps", "less than or equal to 1000000000"),
        ("models.dit.qk_norm", 1, "models.dit.qk_norm", "boolean"),
        ("training.short.learning_rate", "fast", "training.short.learning_rate", "number"),
        ("training.short.learning_rate", float("nan"), "training.short.learning_rate", ""),
        ("training.short.learning_rate", "-1e-4", "training.short.learning_rate", "greater than 0"),
        ("training.short.learning_rate", -1e-4, "training.short.learning_rate", "greater than 0"),
        ("training.short.learning_rate", float("inf"), "training.short.learning_rate", "finite"),
        ("training.short.seed", 2**63, "training.short.seed", "less than 9223372036854775808"),
        ("training.short.timesteps", {"name": "time_shift", "shift": 0}, "training.short.timesteps.shift", "than 0"),
        ("training.short.seed", -1, "training.short.seed", "greater than or equal to 0"),
        ("training.short.ema_decays", [0.9, 1.0], "training.short.ema_decays.1", "less than 1"),
        ("training.short.ema_decays", 0.9, "training.short.ema_decays", "expected a list, not 0.9"),
        ("runs.dip_ep2.checkpoint.ema_decay", "0.9", "runs.dip_ep2.checkpoint.ema_decay", "number"),
        ("training.short.precision", "fp16", "training.short.precision", "'bf16' or 'fp32'"),
        ("training.short.betas", [0.9], "training.short.betas.1", "missing"),
        ("training.short.timesteps", {"name": "normal"}, "training.short.timesteps", "logit_normal"),
        ("sampling.euler.cfg_interval", [0.1, 1.5], "sampling.euler.cfg_interval.1", "less than or equal to 1"),
        ("sampling.euler.cfg_scale", 0.5, "sampling.euler.cfg_scale", "greater than or equal to 1"),
        ("sampling.euler.solver", "eular", "sampling.euler.solver", "euler"),
        ("training.short.betas", [0.9, 0.9, 0.9], "training.short.betas", "expected at most 2 of them, not 3"),
        ("models.dip.head", "mlp", "models.dip.head", 'expected a mapping, not "mlp"'),
        ("models.dip.head", {"name": "unet++"}, "models.dip.head", "expected one of 'unet', 'mlp'"),
        ("models.dip.head", {"name": "unet", "depth": 1}, "models.dip.head.width", "missing"),
        ("models.dip.placement", "posthoc", "models.dip.placement", "'post_hoc', 'intermediate'"),
        ("models.dip.head_input", "pixel", "models.dip.head_input", "'patch' or 'image'"),
        ("training.short.init_from", ["dit.pt"], "training.short.init_from", "string"),
        ("training.short.init_from", "", "training.short.init_from", 'expected some text, not ""'),
        ("runs.dip.label", " \t\u00a0", "runs.dip.label", "expected some text"),
        ("tables.table2.demo.sections", {" ": ["dip"]}, "tables.table2.demo.sections. ", "expected some text"),
        ("models. ", {"base": "dip"}, "models. ", "expected a name"),
        ("models.dit.num_heads", DELETE, "models.dit.num_heads", "missing"),
        ("datasets.photos.image_size", DELETE, "datasets.photos.image_size", "missing"),
        ("datasets.photos.photographs", ["coins"], "datasets.photos.photographs", "at least 2"),
        ("datasets.photos.held_out", 1.0, "datasets.photos.held_out", "less than 1"),
        ("datasets", DELETE, "datasets", "missing"),
        ("runs", ["dip"], "runs", "expected a mapping"),
        ("runs.dip", 3, "runs.dip", "expected a mapping"),
        ("runs.dip.study", DELETE, "runs.dip.study", "missing"),
        ("runs.dip.dataset", DELETE, "runs.dip.dataset", "expected one of datasets: photos"),
        ("runs.dip.dataset", "photo", "runs.dip.dataset", "expected one of datasets: photos"),
        ("runs.dip.evaluation", "adm", "runs.dip.evaluation", "expected one of evaluation: photos"),
        ("runs.dip.sampling", DELETE, "runs.dip.sampling", "expected a mapping"),
        ("runs.deep.model", "dip", "runs.deep.model", "expected a mapping"),
        ("runs.dip.model.base", "dipp", "runs.dip.model.base", "did you mean 'dip'?"),
        ("runs.dip.model.base", ["dip"], "runs.dip.model.base", "there is no"),
        ("runs.dit.base", "dipp", "runs.dit.base", "did you mean 'dip'?"),
        ("runs.dit.base", {"dip": 1}, "runs.dit.base", "there is no"),
        ("models.dip.base", "nothing", "models.dip.base", "there is no 'nothing' under models; there are dit, dip"),
        ("runs.dip.base", "dip", "runs.dip.base", "'dip' inherits from itself"),
        ("runs.dip.label", 3, "runs.dip.label", "string, not 3; quote it if it is text"),
        ("runs.dip.label", "\alpha", "runs.dip.label", "between double quotes a backslash is written \\\\, not"),
        ("runs.dip", {"label": "DiP"}, "runs.dip", "has no study, dataset, model, training, sampling, evaluation, and"),
        ("runs.dip_ep2.checkpoint.epoch", "2", "runs.dip_ep2.checkpoint.epoch", "integer"),
        ("runs.dip_ep2.checkpoint.epochs", 2, "runs.dip_ep2.checkpoint.epochs", "did you mean 'epoch'?"),
        ("runs.dip_ep2.checkpoint.run", "dap", "runs.dip_ep2.checkpoint.run", "there is no 'dap'"),
        ("code_version", "1", "code_version", "integer"),
        ("code_version", True, "code_version", "integer"),
        ("study", 3, "study", "string"),
        ("tables.table2", [], "tables.table2", "expected a mapping"),
        ("tables.table2", {"caption": "c", "layout": "table2"}, "tables.table2.caption", "there is no study 'caption'"),
        ("figures.figure10.demo", TREE | {"branchings": 13}, "figures.figure10.demo.branchings", "or equal to 12"),
        ("tables.table2.demo.layout", "table4", "tables.table2.demo.layout", "table1"),
        ("tables.table2.demo.sections.All", ["dip", 3], "tables.table2.demo.sections.All.1", "string"),
    ],
)
def test_every_mistake_is_one_line_with_its_key(
    load: Load, content: Content, keys: str, value: Any, where: str, what: str
) -> None:
    """Wrong: a mistyped key would be ignored, or reported where it does not stand, or once for every run."""
    put(content, keys, value)
    (line,) = mistakes(load, content)
    assert line.startswith(f"{where}: ")
    assert what in line


def test_what_a_terminal_would_act_on_is_escaped(load: Load, content: Content) -> None:
    """Wrong: the message would clear the screen on which it stands, or show its words in another order."""
    content["runs"]["dip"]["study"] = "\x1b[2J\u202e"
    assert any(r"a letter first, not '\x1b[2J\u202e'" in line for line in mistakes(load, content))


def test_circular_bases_are_named(load: Load, content: Content) -> None:
    """Wrong: reading would recurse without end."""
    content["models"]["dit"]["base"] = "dip"
    assert set(mistakes(load, content)) == {
        "models.dit.base: 'dip' inherits from itself",
        "models.dip.base: 'dit' inherits from itself",
    }


def test_mistyped_checkpoint_is_the_only_mistake(load: Load, content: Content) -> None:
    """Wrong: all that the run would have inherited would be reported missing."""
    content["runs"]["dip_ep2"]["checkpoint"] = {"runn": "dip"}
    assert mistakes(load, content) == [
        "runs.dip_ep2.checkpoint.run: missing",
        "runs.dip_ep2.checkpoint.runn: unknown key; did you mean 'run'?",
    ]


def test_all_mistakes_are_reported_at_once(load: Load, content: Content) -> None:
    """Wrong: a user would mend one, run again and find the next."""
    put(content, "models.dit.depth", "x")
    put(content, "sampling.euler.solver", "x")
    put(content, "runs.deep.model.depht", 1)
    assert {line.split(":")[0] for line in mistakes(load, content)} == {
        "models.dit.depth",
        "sampling.euler.solver",
        "runs.deep.model.depht",
    }


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1\nb: 2", "not valid YAML: line 2"),
        ("study: demo\nstudy: paper\n", "not valid YAML: line 2, column 1: the key 'study' stands twice"),
        ("? [a]\n: 1\n", "not valid YAML: line 1, column 3: found unhashable key"),
        ("a: \x00", "not valid YAML"),
        ("- a\n- b\n", "expected a mapping with the keys study"),
        ("", "expected a mapping"),
    ],
)
def test_text_that_is_not_a_mapping_is_one_line(load: Load, text: str, what: str) -> None:
    """Wrong: a traceback, or the later of two equal keys would win silently."""
    (line,) = mistakes(load, text)
    assert what in line


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Wrong: a traceback for a call outside the repository or a file in another encoding."""
    with pytest.raises(params.ParamsError, match=r"absent\.yaml: cannot be read \(No such file"):
        params.load(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"code_version: 1\r\nstudy: d\xe9mo")
    with pytest.raises(params.ParamsError, match=r"latin\.yaml: not UTF-8 text \(line 2: .*\); save it as UTF-8"):
        params.load(tmp_path / "latin.yaml")


def test_dates_are_refused(load: Load, content: Content) -> None:
    """Wrong: a label such as 2025-01-01, which YAML reads as a date, would end in a traceback."""
    import datetime

    content["studies"]["demo"]["title"] = datetime.date(2025, 1, 1)
    (line,) = mistakes(load, content)
    assert line == "not valid YAML: line 5, column 12: '2025-01-01' cannot be read as timestamp; quote it if it is text"
    put(content, "studies.demo.title", "Demo")
    put(content, "training.short.epochs", datetime.date(2025, 1, 1))  # which four runs inherit
    assert len(mistakes(load, content)) == 1


def test_text_of_several_lines_does_not_break_a_message(load: Load, content: Content) -> None:
    """Wrong: a part of the message would stand without the file and the key."""
    put(content, "models.dip.head", {"name": "unet\nmlp"})
    (line,) = mistakes(load, content)
    assert line.startswith("models.dip.head: expected one of ") and line.endswith("not 'unet mlp'")


def test_keys_are_what_stands_there(load: Load, content: Content) -> None:
    """Wrong: a section `on` would be printed as True, 1.10 as 1.1, and a run could be named `.inf`."""
    text = yaml.safe_dump(content)
    sections = {key: load(text.replace("All:", f"{key}:")).tables["table2"]["demo"].sections for key in ("on", "1.10")}
    assert {key: list(found) for key, found in sections.items()} == {"on": ["on"], "1.10": ["1.10"]}
    series = load(text.replace(" D:", " 2026-01-01:")).figures["figure10"]["demo"].panels[0].series
    assert list(series) == ["2026-01-01"]
    (line,) = mistakes(
        load, text.replace("  dit:\n    base: dip", "  .inf:\n    base: dip").replace("- dit\n", "- deep\n")
    )
    assert line == "runs..inf.name: expected small letters, digits and _, a letter first, not '.inf'"


def test_long_names_are_refused(load: Load, content: Content) -> None:
    """Wrong: `dip stages`, or a job after days of training, would end in "File name too long"."""
    for section, entry in (("runs", {"base": "dip"}), ("datasets", {"base": "photos"}), ("figures", {})):
        changed = copy.deepcopy(content)
        put(changed, f"{section}.{'x' * 101}", entry)
        (line,) = mistakes(load, changed)
        assert line.startswith(f"{section}.xxx") and "at most 100 characters" in line


# --- what is accepted -------------------------------------------------------------------------------------


def test_negative_numbers_without_a_dot_are_numbers(load: Load, content: Content) -> None:
    """Wrong: a mean of `-8e-1` would be no number, unlike `8e-1`."""
    put(content, "training.short.timesteps", {"name": "logit_normal", "mean": "-8e-1"})
    assert load(content).runs["dip"].training.timesteps == LogitNormal(name="logit_normal", mean=-0.8)


def test_numbers_without_a_dot_are_numbers(load: Load, content: Content) -> None:
    """Wrong: `1e-4`, which YAML 1.1 reads as text, would be refused or differ from `1.0e-4`."""
    text = yaml.safe_dump(content)
    short = load(text.replace("learning_rate: 0.01", "learning_rate: 1e-2")).runs["dip"]
    assert short.training.learning_rate == 0.01
    assert short.canonical() == load(content).runs["dip"].canonical()


def test_merge_keys_may_be_overridden_before_they_are_filled_in(load: Load, content: Content) -> None:
    """Wrong: a `<<` of a mapping that has a `<<` itself would count as a key that stands twice."""
    text = yaml.safe_dump(content, sort_keys=False)
    first = (
        "studies:\n  demo: &demo {<<: &base {title: T, description: D}, title: Demo}\n  paper: {<<: *demo, title: P}\n"
    )
    text = first + text.replace(yaml.safe_dump({"studies": content["studies"]}, sort_keys=False), "")
    text = text.replace("figures:\n", "figures:\n", 1)
    read = load(text)
    assert read.studies["demo"].title == "Demo"
    assert (read.studies["paper"].title, read.studies["paper"].description) == ("P", "D")


def test_order_and_comments_change_no_parameter(load: Load, content: Content) -> None:
    """Wrong: reordering keys would train everything again."""
    first = load(content)

    def reverse(tree: Any) -> Any:
        return {key: reverse(tree[key]) for key in reversed(tree)} if isinstance(tree, dict) else tree

    second = load("# a comment\n" + yaml.safe_dump(reverse(content), sort_keys=False))
    for name, run in first.runs.items():
        assert run.canonical() == second.runs[name].canonical()


def test_canonical_parameters_can_be_read_back(run: Run) -> None:
    """Wrong: a job would train with other parameters than were planned."""
    for part in (TrainingSpec, SamplingSpec):
        assert part.parse(run.part(part).canonical()) == run.part(part)


def test_what_a_training_depends_on(load: Load, content: Content) -> None:
    """Wrong: a new label or sampler would train again, or a new learning rate would not."""
    before = load(content).runs["dip"].part(TrainingSpec).canonical()
    for keys, value in (
        ("runs.dip.label", "new"),
        ("sampling.euler.num_steps", 9),
        ("evaluation.photos.num_samples", 9),
        ("models.dit.depth", 2),
    ):
        put(content, keys, value)
    assert load(content).runs["dip"].part(TrainingSpec).canonical() == before
    for keys, value in (("code_version", 2), ("models.dit.depth", 3), ("datasets.photos.seed", 3)):
        changed = copy.deepcopy(content)
        put(changed, keys, value)
        assert load(changed).runs["dip"].part(TrainingSpec).canonical() != before, keys


def test_where_files_lie_changes_no_parameter(load: Load, content: Content) -> None:
    """Wrong: moving ImageNet to another disk would train everything again."""
    dataset = {"kind": "imagenet", "image_size": 8, "source": "/a", "num_classes": 2, "num_images": 16}
    content["datasets"]["folder"] = dataset
    put(content, "runs.dip.dataset", "folder")
    first = load(content).runs["dip"].canonical()
    dataset["source"] = "/b"
    assert load(content).runs["dip"].canonical() == first


@pytest.mark.parametrize(
    ("schema", "key", "rest"),
    [
        (Alignment, "encoder_path", {}),
        (InceptionExtractor, "weights", {"name": "inception"}),
        (FileReference, "path", {"kind": "file"}),
    ],
)
def test_where_weights_and_references_lie_changes_no_parameter(
    schema: type[Schema], key: str, rest: dict[str, str]
) -> None:
    """Wrong: a machine that keeps them elsewhere would train, sample or evaluate everything again."""
    assert schema(**rest, **{key: "/a"}).canonical() == schema(**rest).canonical()


def test_study_in_place_of_that_of_the_file(load: Load, content: Content) -> None:
    """Wrong: `snakemake --config study=paper` would build the file's study, or accept a mistyped one."""
    assert load(content, "paper").study == "paper"
    assert mistakes(load, content, "papr") == ["study: there is no study 'papr'; did you mean 'paper'?"]


def test_steps_drop_the_incomplete_batch(load: Load, content: Content) -> None:
    """Wrong: the last log line and the schedule's end would not be at the last step."""
    put(content, "training.short.batch_size", 5)
    run = load(content).runs["dip"]
    assert (run.steps_per_epoch, run.num_steps) == (3, 12)
