"""From params.yaml and the files of runs to the points of a figure."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dip.experiments import EXPERIMENTS
from dip.paths import RunFolder
from dip.reporting import study_figures
from dip.reporting.figures import _QUANTITIES
from dip.schema import Checkpoint, Comparison, Figure, Panel, Params, Run


@pytest.fixture
def in_place(
    run_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., RunFolder]:
    """Write the files of a run of params.yaml to where they belong."""
    monkeypatch.chdir(tmp_path)

    def write(run: Run, **metrics: Any) -> RunFolder:
        folder = RunFolder.of(run.study, run.name)
        folder.folder.parent.mkdir(parents=True)
        run_folder(run.name, **metrics).rename(folder.folder)
        return folder

    return write


def test_every_quantity_of_a_panel_can_be_drawn() -> None:
    """Wrong: params.yaml could name a quantity that fails after all runs are done."""
    for axis in ("x", "y"):
        assert set(typing.get_args(Panel.model_fields[axis].annotation)) <= set(_QUANTITIES)


def test_every_kind_of_a_figure_has_its_experiment() -> None:
    """Wrong: params.yaml could name a kind that nothing draws."""
    kinds = set(typing.get_args(typing.get_args(Figure)[0])) - {Comparison}
    assert {typing.get_args(kind.model_fields["kind"].annotation)[0] for kind in kinds} == set(EXPERIMENTS)


@pytest.mark.parametrize("grid", [{"patch_size": 4, "seams": 1.5, "period": 0.9}, None])
def test_a_point_has_settings_and_measurements(
    run: Run, in_place: Callable[..., RunFolder], grid: dict[str, float] | None
) -> None:
    """Wrong: a sweep would stand at the training's settings instead of the row's, or without its measurements."""
    row = run.model_copy(update={"checkpoint": Checkpoint(run="other", ema_decay=0.9)})
    in_place(row, fid=3.0, patch_grid=grid)
    point = study_figures._point(row)
    assert (point["fid"], point["ema_decay"], point["cfg_scale"]) == (3.0, 0.9, 2.0)
    assert (point["patch_size"], point["head.width"], point["head.initialisation"]) == (4, 4, "he_nonzero")
    assert point.get("seams") == (1.5 if grid else None)
    assert "note" not in point
    assert "without alignment (REPA)" in study_figures._point(row, some_aligned=True)["note"]


def test_missing_measurement_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the message would advise to remove the folder, and with it a trained model."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"metrics\.json: missing; the stage that writes it has not run"):
        study_figures._point(run)


def test_older_result_is_told_apart_from_a_broken_one(
    run: Run, in_place: Callable[..., RunFolder], load: Callable[..., Params], content: dict[str, Any]
) -> None:
    """Wrong: who adds a metric would read that it is "None", and not of which run nor what to do."""
    figure = content["figures"]["figure10"]["demo"]
    figure["panels"] = [{"title": "a", "x": "head.depth", "y": "seams", "series": {"D": ["dip"]}}]
    folder = in_place(run, patch_grid=None)
    with pytest.raises(ValueError, match=rf"^{folder.metrics}: has no seams.*`dip evaluate dip`"):
        study_figures.draw_figure(load(content), "demo", "figure10")
    figure["panels"][0]["y"] = "latency_seconds"
    folder.latency.unlink()
    with pytest.raises(ValueError, match=rf"^{folder.latency}: missing; measure it: `dip latency dip`"):
        study_figures.draw_figure(load(content), "demo", "figure10")


@pytest.mark.parametrize("name", ["metrics", "latency"])
@pytest.mark.parametrize("content", ["[]", "5", "null", "{}", '{"patch_grid": 5}', '{"fid": "3"}'])
def test_damaged_measurement_is_named(run: Run, in_place: Callable[..., RunFolder], name: str, content: str) -> None:
    """Wrong: a traceback, or a message that does not say which file is damaged."""
    folder = in_place(run)
    getattr(folder, name).write_text(content)
    with pytest.raises(ValueError, match=rf"^{folder.folder}/{name}\.json: "):
        study_figures._point(run)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"\x93NUMPY\1\0"])
def test_damaged_data_of_an_experiment_is_named(tmp_path: Path, content: bytes) -> None:
    """Wrong: a traceback of NumPy's, which knows no file."""
    path = tmp_path / "theory.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"theory\.npz: cannot be read .*; make it with `dip experiment theory`"):
        study_figures._load(path, "theory")
