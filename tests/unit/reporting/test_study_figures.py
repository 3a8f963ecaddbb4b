"""From params.yaml and the files of runs to the points of a figure."""

from __future__ import annotations

import json
import typing
from pathlib import Path

import pytest

from dip.paths import RunFolder
from dip.reporting import study_figures
from dip.reporting.figures import _QUANTITIES
from dip.schema import Checkpoint, Panel, Run


def test_every_quantity_of_a_panel_can_be_drawn() -> None:
    """Wrong: params.yaml could name a quantity that fails after all runs are done."""
    for axis in ("x", "y"):
        assert set(typing.get_args(Panel.model_fields[axis].annotation)) <= set(_QUANTITIES)


@pytest.mark.parametrize("grid", [{"patch_size": 4, "seams": 1.5, "period": 0.9}, None])
def test_a_point_has_settings_and_measurements(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grid: dict[str, float] | None
) -> None:
    """Wrong: a sweep would stand at the training's settings instead of the row's, or without its measurements."""
    monkeypatch.chdir(tmp_path)
    row = run.model_copy(update={"checkpoint": Checkpoint(run="other", ema_decay=0.9)})
    folder = RunFolder.of(row.study, row.name)
    folder.folder.mkdir(parents=True)
    folder.metrics.write_text(json.dumps({"fid": 3.0, "patch_grid": grid}))
    point = study_figures._point(row)
    assert (point["fid"], point["ema_decay"], point["cfg_scale"]) == (3.0, 0.9, 2.0)
    assert (point["patch_size"], point["head.width"]) == (4, 4)
    assert point.get("seams") == (1.5 if grid else None)
    assert "note" not in point
    assert "without alignment (REPA)" in study_figures._point(row, some_aligned=True)["note"]
