"""The params.yaml of this repository: its studies, and that what a table compares is comparable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dip import params
from dip.model import build_model
from dip.schema import Params, Photographs, UNetHead

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shipped() -> Params:
    return params.load(ROOT / "params.yaml")


def test_shipped_file_has_every_study(shipped: Params) -> None:
    """Wrong: a table or a figure would be missing at one of the scales."""
    assert set(shipped.studies) == {"paper", "small", "demo"}
    compared = {
        name: by_study
        for name, by_study in shipped.figures.items()
        if any(entry.kind == "comparison" for entry in by_study.values())  # others belong to the data of one study
    }
    for entries in (shipped.tables, compared):
        assert all(set(by_study) == set(shipped.studies) for by_study in entries.values())
    assert {"table1", "table2", "table3"} <= set(shipped.tables)
    assert all(len(entry.runs) == 8 for entry in shipped.tables["table2"].values())


@pytest.mark.parametrize("name", ["dip_xl_16", "demo_dip", "small_dip"])
def test_shipped_models_keep_the_paper_s_ratios(shipped: Params, name: str) -> None:
    """Wrong: the demo would compare models that the paper does not: D = 1.5 x 3P^2, bottleneck = 2/3 x 3P^2."""
    model = shipped.runs[name].model
    pixels = 3 * model.patch_size**2
    assert model.hidden_size == 1.5 * pixels
    assert isinstance(model.head, UNetHead)
    assert model.head.width * 2 ** (model.head.depth - 1) == 2 / 3 * pixels


def test_rows_of_table_2_are_trained_alike(shipped: Params) -> None:
    """Wrong: heads and backbones would be compared at unequal steps or on unequal data."""
    for study in ("demo", "small"):
        runs = [shipped.runs[name] for name in shipped.tables["table2"][study].runs]
        tuned = {"milestones": (), "ema_decays": (), "learning_rate": 1.0, "head_learning_rate_scale": 1.0}
        assert len({run.training.model_copy(update=tuned).canonical() for run in runs}) == 1
        assert len({(run.dataset_name, run.sampling.canonical(), run.evaluation_name) for run in runs}) == 1


def test_small_study_has_its_scale(shipped: Params) -> None:
    """Wrong: the GPU's study would be no larger than the demo: 20-40M parameters, crops of 64 x 64 or larger."""
    run = shipped.runs["small_dip"]
    with torch.device("meta"):
        model = build_model(run.model, run.dataset.image_size, run.dataset.num_classes)
    backbone = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in model.head_parameters())
    assert 20e6 <= backbone <= 40e6
    assert all(r.dataset.image_size >= 64 for r in shipped.runs.values() if r.study == "small")


def test_demo_needs_no_download(shipped: Params) -> None:
    """Wrong: the demo would not run offline."""
    for run in shipped.runs.values():
        if run.study == "demo":
            assert isinstance(run.dataset, Photographs)
            assert run.evaluation.extractor.name == "photo" and run.training.alignment is None
