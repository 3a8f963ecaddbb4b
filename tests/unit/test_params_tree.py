"""Inheritance, and the lines about values that are wrong where they are inherited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dip.params import ParamsError
from dip.schema import Params, TrainingSpec, UNetHead

Content = dict[str, Any]
Load = Callable[..., Params]


def put(content: Content, keys: str, value: Any) -> None:
    *parents, last = keys.split(".")
    for key in parents:
        content = content[key]
    content[last] = value


def mistake(load: Load, content: Content) -> str:
    """The only one."""
    with pytest.raises(ParamsError) as error:
        load(content)
    (line,) = str(error.value).splitlines()
    return line[line.index("params.yaml: ") :]


def test_inheritance_goes_key_by_key(load: Load, content: Content) -> None:
    """Wrong: overriding one key would lose its neighbours."""
    runs = load(content).runs
    assert (runs["deep"].model.depth, runs["deep"].model.hidden_size) == (3, 16)
    assert runs["deep"].model.head == runs["dip"].model.head
    assert runs["deep"].training == runs["dip"].training
    assert runs["dip"].training.milestones == (2,)


def test_label_is_not_inherited(load: Load, content: Content) -> None:
    """Wrong: two rows of a table would have the same name."""
    runs = load(content).runs
    assert runs["deep"].label == "deep"
    assert runs["dip_2steps"].label == "dip_2steps"
    assert runs["dip_ep2"].label == "DiP/4 early"


def test_other_base_of_a_part_keeps_the_overrides_on_top(load: Load, content: Content) -> None:
    """Wrong: whether a run's overrides hold would depend on the order in which runs are read."""
    content["runs"] = {
        "dip": content["runs"]["dip"] | {"model": {"base": "dip", "depth": 4}},
        "child": {"base": "dip", "model": {"base": "dit"}},
        "grandchild": {"base": "child", "model": {"hidden_size": 32}},
    }
    del content["tables"]["table2"], content["figures"]["figure10"]
    for order in (list, lambda names: list(reversed(names))):
        runs = load(content | {"runs": {name: content["runs"][name] for name in order(list(content["runs"]))}}).runs
        assert (runs["child"].model.head.name, runs["child"].model.depth) == ("none", 4)
        grandchild = runs["grandchild"].model
        assert (grandchild.head.name, grandchild.depth, grandchild.hidden_size) == ("none", 4, 32)


def test_mapping_of_another_name_replaces_the_inherited_one(load: Load, content: Content) -> None:
    """Wrong: an MLP head would inherit the U-Net's width and be refused."""
    put(content, "runs.deep.model.head", {"name": "mlp"})
    put(content, "figures", {})  # one of which shows the head's depth
    assert load(content).runs["deep"].model.head.name == "mlp"
    put(content, "runs.deep.model.head", {"name": "unet", "width": 8})
    head = load(content).runs["deep"].model.head
    assert isinstance(head, UNetHead) and (head.depth, head.width) == (1, 8)
    content["datasets"]["folder"] = {"base": "photos", "kind": "imagenet", "image_size": 8, "num_images": 16}
    assert load(content).datasets["folder"].kind == "imagenet"


def test_null_turns_an_inherited_part_off(load: Load, content: Content) -> None:
    """Wrong: an ablation could not leave the alignment out."""
    put(content, "training.short.alignment", {"block": 1})
    for name in ("dip", "deep"):
        put(content, f"runs.{name}.training", {"base": "short", "alignment": None, "milestones": [2]})
    assert load(content).runs["deep"].training.alignment is None


def test_run_with_a_checkpoint_has_the_model_of_its_training(load: Load, content: Content) -> None:
    """Wrong: weights would be loaded into another architecture."""
    runs = load(content).runs
    assert runs["dip_ep2"].part(TrainingSpec) == runs["dip"].part(TrainingSpec)
    assert (runs["dip_ep2"].epochs, runs["dip_2steps"].epochs) == (2, 4)
    assert runs["dip_2steps"].sampling.num_steps == 2
    assert runs["dip_2steps"].sampling.cfg_scale == 2.0


def test_a_value_that_is_wrong_where_it_is_inherited_names_who_inherits_it(load: Load, content: Content) -> None:
    """Wrong: the line would name an entry that is right and that nobody has edited, and not the one that is wrong."""
    milestones = "params.yaml: runs.dip.training.milestones: 2 is not before the last epoch, 1; the last one is always"
    content["runs"]["mine"] = {"base": "dip", "training": {"epochs": 1}}
    assert mistake(load, content) == f"{milestones} kept (inherited by runs.mine)"
    content["runs"]["other"] = {"base": "mine"}
    assert mistake(load, content) == f"{milestones} kept (inherited by runs.mine and 1 more)"
    content["runs"]["dip"]["training"]["epochs"] = 1
    assert mistake(load, content) == f"{milestones} kept"
