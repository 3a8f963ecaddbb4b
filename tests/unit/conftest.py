"""A tiny params.yaml and prepared data, for tests that need a whole run: images of 8 x 8, 16 steps of training."""

from __future__ import annotations

import copy
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from dip import params
from dip.data.prepare import write_store
from dip.paths import Store
from dip.schema import Params, Run, TrainingSpec

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

gc.disable()  # until all is imported, of which nothing is garbage


def pytest_collection_finish() -> None:
    """Tests run as programs do."""
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """A file's tests go to one process, which alone makes what they share and imports what only they need."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _disk_is_not_waited_for() -> Iterator[None]:
    """No test cuts the power. That files are synced before they are renamed is tested in `test_files.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, as fsync does
        yield


TINY = """
study: demo
code_version: 1
studies:
  demo: {title: Demo, description: Tiny.}
  paper: {title: Paper, description: None.}
datasets:
  photos: {kind: photographs, image_size: 8, photographs: [coins, chelsea], crops_per_class: 8}
models:
  dit: {patch_size: 4, hidden_size: 16, depth: 2, num_heads: 2, head: {name: none}}
  dip: {base: dit, head: {name: unet, depth: 1, width: 4}}
training:
  short: {epochs: 4, batch_size: 4, learning_rate: 1.0e-2, ema_decay: 0.5, log_every: 2, precision: fp32}
sampling:
  euler: {num_steps: 4, cfg_scale: 2.0, precision: fp32}
evaluation:
  photos:
    title: Inception
    image_size: 8
    extractor: {name: inception}
    reference: {kind: held_out, dataset: photos, num_images: 10}
    num_samples: 10
runs:
  dip:
    study: demo
    label: DiP/4
    dataset: photos
    model: {base: dip}
    training: {base: short, milestones: [2]}
    sampling: {base: euler}
    evaluation: photos
  dit: {base: dip, label: DiT/4, model: {base: dit}}
  deep: {base: dip, model: {depth: 3}}
  dip_ep2: {label: DiP/4 early, checkpoint: {run: dip, epoch: 2}}
  dip_2steps: {checkpoint: {run: dip}, sampling: {num_steps: 2}}
tables:
  table2: {demo: {caption: A table., layout: table2, sections: {All: [dit, dip]}}}
figures:
  figure10:
    demo: {kind: comparison, caption: A figure., panels: [{title: a, x: head.depth, y: fid, series: {D: [dip, deep]}}]}
"""

_CONTENT = yaml.safe_load(TINY)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@pytest.fixture
def content() -> dict[str, Any]:
    """The tiny params.yaml as nested dictionaries, to be changed at will."""
    return copy.deepcopy(_CONTENT)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Params]:
    """Write nested dictionaries (or text) as params.yaml and read it."""

    def read(content: dict[str, Any] | str, study: str | None = None) -> Params:
        path = tmp_path / "params.yaml"
        text = content if isinstance(content, str) else yaml.dump(content, Dumper=_DUMPER, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return params.load(path, study)

    return read


@pytest.fixture
def run(load: Callable[..., Params]) -> Run:
    """The run `dip` of the tiny params.yaml."""
    return load(TINY).runs["dip"]


@pytest.fixture
def spec(run: Run) -> TrainingSpec:
    """What its training depends on."""
    return run.part(TrainingSpec)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the tiny params.yaml and its dataset prepared (random pixels)."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(TINY)
    dataset = params.load().datasets["photos"]
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    write_store("photos", dataset, Store.of("photos"), images, np.arange(16) % 2, ["coins", "chelsea"])
    return tmp_path
