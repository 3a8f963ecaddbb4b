"""Values that are fine by themselves and impossible together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dip.params import ParamsError
from dip.schema import Params

Content = dict[str, Any]
Load = Callable[..., Params]
MODEL, TRAINING = "runs.dip.model.", "runs.dip.training."
PANEL = {"title": "a", "x": "patch_size", "y": "fid", "series": {"s": ["dit"]}}
EVALUATION = {"image_size": 8, "extractor": {"name": "inception"}, "num_samples": 99, "neighbours": 16}


def put(content: Content, keys: str, value: Any) -> None:
    *parents, last = keys.split(".")
    for key in parents:
        content = content[key]
    content[last] = value


def mistakes(load: Load, content: Content) -> list[str]:
    with pytest.raises(ParamsError) as error:
        load(content)
    return [line.split("params.yaml: ", 1)[1] for line in str(error.value).splitlines()]


@pytest.mark.parametrize(
    ("edits", "where", "what"),
    [
        ({MODEL + "patch_size": 3}, MODEL + "patch_size", "3 does not divide the images of 8 x 8"),
        ({"models.dit.patch_size": 3}, "models.dit.patch_size", "3 does not divide the images of 8 x 8"),
        ({MODEL + "num_heads": 3}, "models.dit.hidden_size", "16 is not divisible by num_heads = 3"),
        ({MODEL + "num_heads": 8}, MODEL + "num_heads", "2 is not divisible by 4, as 2-D RoPE needs"),
        ({MODEL + "head": {"depth": 3}}, MODEL + "head.depth", "3 stages halve the patch to 1 / 2^3"),
        (
            {MODEL + "head": {"name": "attention", "width": 10}},
            MODEL + "head.width",
            "10 is not divisible by num_heads = 4",
        ),
        ({MODEL + "head": {"name": "attention", "width": 8}}, MODEL + "head", "8 / 4 is not divisible by 4"),
        (
            {MODEL + "head": {"name": "none"}, MODEL + "placement": "hybrid"},
            MODEL + "placement",
            "needs a head, and the model has none",
        ),
        ({MODEL + "intermediate_block": 1}, MODEL + "intermediate_block", "only with placement intermediate"),
        (
            {MODEL + "intermediate_block": 2, MODEL + "placement": "intermediate"},
            MODEL + "intermediate_block",
            "2 is not before the last of the 2 blocks",
        ),
        ({MODEL + "placement": "hybrid", MODEL + "depth": 1}, MODEL + "depth", "needs two blocks"),
        ({MODEL + "head": {"name": "mlp"}, MODEL + "head_input": "image"}, MODEL + "head_input", "only the U-Net"),
        ({TRAINING + "batch_size": 17}, TRAINING + "batch_size", "17 is more than the 16 images of photos"),
        ({TRAINING + "milestones": [2, 4]}, TRAINING + "milestones", "4 is not before the last epoch, 4"),
        (
            {TRAINING + "ema_decays": [0.9, 0.5]},
            TRAINING + "ema_decays",
            "0.5 stands twice; name every decay once, and not that of ema_decay, 0.5",
        ),
        ({TRAINING + "ema_decays": [0.9, 0.9]}, TRAINING + "ema_decays", "0.9 stands twice"),
        ({TRAINING + "alignment": {"block": 3}}, TRAINING + "alignment.block", "3 is more than the 2 blocks"),
        ({TRAINING + "alignment": {"block": 1}}, TRAINING + "alignment", "the encoder has 16 x 16 patches"),
        ({"sampling.euler.cfg_interval": [0.5, 0.5]}, "sampling.euler.cfg_interval", "[0.5, 0.5] is empty"),
        ({TRAINING + "label_dropout": 0}, "sampling.euler.cfg_scale", "guidance of 2 needs a model that has seen"),
        ({"evaluation.photos.image_size": 16}, "runs.dip.evaluation", "is for images of 16 pixels, the run's have 8"),
    ],
)
def test_impossible_run_names_the_key(
    load: Load, content: Content, edits: dict[str, Any], where: str, what: str
) -> None:
    """Wrong: it would fail hours later on a node, or be reported where it does not stand."""
    for keys, value in edits.items():
        put(content, keys, value)
    lines = mistakes(load, content)
    assert len([line for line in lines if line.startswith(where) and what in line]) == 1, lines


@pytest.mark.parametrize(
    ("edits", "where", "what"),
    [
        ({"study": "demmo"}, "study", "there is no study 'demmo'; did you mean 'demo'?"),
        (
            {"datasets.photos.photographs": ["coffee", "coins", "coffee"]},
            "datasets.photos.photographs",
            "'coffee' stands in it twice",
        ),
        (
            {"studies.runs": {"title": "t", "description": "d"}},
            "studies.runs",
            "results/runs holds the runs of 'paper'",
        ),
        ({"tables.report": {}}, "tables.report", "Snakemake's report of a study has this name"),
        ({"figures.report": {}}, "figures.report", "Snakemake's report of a study has this name"),
        ({"tables.table2.demo.sections.All": ["dipp"]}, "tables.table2.demo", "'dipp'; did you mean 'dip'?"),
        ({"tables.table2.demo.sections.All": ["dip", "dip"]}, "tables.table2.demo", "'dip' stands in it twice"),
        (
            {"figures.figure10.demo.panels": [{"title": "a", "x": "patch_size", "y": "fid", "series": {"s": ["no"]}}]},
            "figures.figure10.demo",
            "there is no run 'no'",
        ),
        (
            {"tables.cost": {"demo": {"caption": "c", "layout": "cost", "sections": {"s": []}}}},
            "tables.cost.demo.sections",
            "there is no run, and the table has no published rows",
        ),
        (
            {"tables.table2.paper": {"caption": "c", "layout": "table2", "sections": {"s": ["dip"]}}},
            "tables.table2.paper",
            "run 'dip' belongs to study 'demo'",
        ),
        (
            {"tables.table2.papr": {"caption": "c", "layout": "table2", "sections": {"s": ["dip"]}}},
            "tables.table2.papr",
            "there is no study 'papr'",
        ),
        ({"runs.dip_ep2.checkpoint.epoch": 3}, "runs.dip_ep2.checkpoint.epoch", "3 is not kept; 'dip' keeps 2, 4"),
        (
            {"runs.dip.training.ema_decays": [0.9], "runs.dip_ep2.checkpoint.ema_decay": 0.99},
            "runs.dip_ep2.checkpoint.ema_decay",
            "0.99 is not followed; 'dip' follows 0.5, 0.9 (runs.dip.training.ema_decays)",
        ),
        ({"runs.dip_ep2.study": "paper"}, "runs.dip_ep2.checkpoint.run", "'dip' belongs to study 'demo'"),
        ({"runs.dip_ep2.model": {"depth": 3}}, "runs.dip_ep2.checkpoint", "the run's model differs"),
        ({"runs.dip_ep2.training": {"epochs": 9}}, "runs.dip_ep2.checkpoint", "the run's training differs"),
        (
            {"runs.dip_2steps.checkpoint": {"run": "dip_ep2"}},
            "runs.dip_2steps.checkpoint.run",
            "'dip_ep2' is not trained itself; name 'dip'",
        ),
        (
            {"evaluation.photos.reference.dataset": "photo"},
            "evaluation.photos.reference.dataset",
            "there is no dataset 'photo'",
        ),
        (
            {
                "datasets.folder": {"kind": "imagenet", "image_size": 8},
                "evaluation.photos.extractor": {"name": "photo", "dataset": "folder"},
            },
            "evaluation.photos.extractor.dataset",
            "'folder' is not a dataset of photographs",
        ),
        (
            {
                "datasets.large": {"base": "photos", "image_size": 16},
                "evaluation.photos.extractor": {"name": "photo", "dataset": "large"},
            },
            "evaluation.photos.extractor.dataset",
            "'large' has images of 16 pixels, not 8",
        ),
        (
            {"evaluation.photos.extractor": {"name": "photo", "dataset": "photos"}},
            "evaluation.photos.image_size",
            "the photo network takes images whose size is a multiple of 4 and 16 or more, not 8",
        ),
        (
            {"evaluation.photos.neighbours": 10},
            "evaluation.photos.neighbours",
            "10 is not below 10, the number of samples or of reference images",
        ),
        ({"datasets.features": {"base": "photos"}}, "datasets.features", "data/features holds the features of all"),
        ({"datasets.references": {"base": "photos"}}, "datasets.references", "give the dataset another name"),
        ({"datasets.photographs": {"base": "photos"}}, "datasets.photographs", "give the dataset another name"),
        (
            {"datasets.photos.photographs": ["coins", "chelsae"]},
            "datasets.photos.photographs",
            "there is no photograph 'chelsae'; did you mean 'chelsea'?",
        ),
        (
            {"evaluation.photos": EVALUATION | {"reference": {"kind": "dataset", "dataset": "photos"}}},
            "evaluation.photos.neighbours",
            "16 is not below 16, the number of samples or of reference images",
        ),
        (
            {"figures.figure10.demo.panels": [PANEL | {"x": "head.width", "series": {"s": ["dip", "dit"]}}]},
            "figures.figure10.demo.panels.0.series.s.1",
            "'dit' has no head.width; its head is 'none'",
        ),
        (
            {"figures.figure10.demo.panels": [PANEL | {"y": "seams"}], "runs.dit.model.patch_size": 8},
            "figures.figure10.demo.panels.0.series.s.0",
            "'dit' has no seams: its patches of 8 leave no grid in images of 8",
        ),
        (
            {"figures.samples": {"demo": {"kind": "gallery", "caption": "c", "run": "dip", "classes": {1: "coins"}}}},
            "figures.samples.demo.classes.1",
            "it is 'chelsea' in the dataset of 'dip', not 'coins'",
        ),
        (
            {"figures.table2": {"demo": {"kind": "theory", "caption": "A figure."}}},
            "figures.table2.demo",
            "a table of this study has the same name",
        ),
    ],
)
def test_entries_that_do_not_fit_each_other(
    load: Load, content: Content, edits: dict[str, Any], where: str, what: str
) -> None:
    """Wrong: a table would lack a row, or a row would show another study's or another model's figures."""
    for keys, value in edits.items():
        put(content, keys, value)
    (line,) = mistakes(load, content)
    assert line.startswith(f"{where}: ")
    assert what in line


@pytest.mark.parametrize(
    ("edits", "what"),
    [
        ({}, None),
        ({"init_from": "$WEIGHTS/dit.ckpt"}, None),
        ({"init_from": "results/demo/runs/dti/model.safetensors"}, "no run has its weights in 'results/demo/runs/dti/"),
        (
            {"init_from": "results/demo/runs/deep/model.safetensors"},
            "the weights would wait for themselves: deep <- deep",
        ),
        ({"init_from": "results/demo/runs/later/model.safetensors"}, "wait for themselves: deep <- later <- deep"),
        ({"init_from": "results/demo/runs/dip/model.safetensors"}, "the backbone of 'dip' has depth 2, this run's 3"),
        ({"init_from": "results/demo/runs/dip_ep2/model.safetensors"}, "the backbone of 'dip' has depth 2"),
    ],
)
def test_weights_to_start_from_must_fit(load: Load, content: Content, edits: dict[str, Any], what: str | None) -> None:
    """Wrong: days of training of the first run would come before the message that its weights do not fit."""
    put(content, "runs.deep.training", edits)
    later = {"init_from": "results/demo/runs/deep/model.safetensors"}
    content["runs"]["later"] = {"base": "deep", "training": later}
    if what is None:
        load(content)
    else:
        lines = [line for line in mistakes(load, content) if line.startswith("runs.deep.")]
        assert lines[0].startswith("runs.deep.training.init_from: ")
        assert what in lines[0]


def test_weights_to_start_from_have_the_same_classes(load: Load, content: Content) -> None:
    """Wrong: days of training of the first run would come before the message that its table of labels does not fit."""
    content["datasets"]["more"] = {"base": "photos", "photographs": ["coins", "chelsea", "rocket"]}
    training = {"init_from": "results/demo/runs/dip/model.safetensors"}
    content["runs"]["finer"] = {"base": "dip", "dataset": "more", "training": training}
    assert mistakes(load, content) == ["runs.finer.training.init_from: 'dip' has 2 classes, this run 3"]


def test_run_of_an_unknown_study(load: Load, content: Content) -> None:
    """Wrong: its results would go to a folder that no target names."""
    put(content, "runs.deep.study", "papr")
    assert mistakes(load, content)[0].startswith("runs.deep.study: there is no study 'papr'")


@pytest.mark.parametrize(
    ("keys", "value", "heir", "entry"),
    [
        ("datasets.photos.photographs", ["coins", "chelsae"], "datasets.larger", {"base": "photos", "image_size": 16}),
        ("evaluation.photos.neighbours", 10, "evaluation.other", {"base": "photos", "title": "other"}),
        ("runs.dip_ep2.checkpoint.epoch", 3, "runs.dip_ep2_fast", {"base": "dip_ep2", "sampling": {"num_steps": 2}}),
    ],
)
def test_inherited_mistake_is_named_where_it_stands(
    load: Load, content: Content, keys: str, value: Any, heir: str, entry: Content
) -> None:
    """Wrong: a mistake would be named once for every entry that inherits it, by keys that are not in the file."""
    put(content, keys, value)
    put(content, heir, entry)
    (line,) = mistakes(load, content)
    assert line.startswith(f"{keys}: ")
