"""Samples of a run: the same for any batch size, in the ADM format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dip.model import build_model
from dip.paths import RunFolder, Store
from dip.sampling.generate import sample_grid, sample_labels, sample_run
from dip.schema import Run, SamplingSpec
from dip.training.checkpoint import save_weights


@pytest.fixture
def weights(workplace: Path, run: Run) -> Path:
    """Random weights of the tiny model."""
    torch.manual_seed(0)
    path = workplace / "model.safetensors"
    save_weights(path, build_model(run.model, 8, 2).state_dict(), "{}")
    return path


def spec(run: Run, num_samples: int) -> SamplingSpec:
    return run.part(SamplingSpec).model_copy(update={"num_samples": num_samples})


def test_images_do_not_depend_on_the_batch_size(weights: Path, run: Run) -> None:
    """Wrong: results would change with the memory of the machine, or with where sampling was interrupted."""
    found = []
    for batch_size in (1, 7, 64):
        target = RunFolder(Path(f"run{batch_size}"))
        sample_run(spec(run, 20), weights, target, batch_size=batch_size)
        with np.load(target.samples) as file:
            found.append((file["arr_0"], file["labels"]))
    images, labels = found[0]
    assert images.shape == (20, 8, 8, 3) and images.dtype == np.uint8
    assert images.std() > 1
    for other, other_labels in found[1:]:
        assert np.abs(images.astype(int) - other).max() <= 1  # a rounding of the matrix products
        np.testing.assert_array_equal(labels, other_labels)
    with np.load("run1/samples.npz", allow_pickle=False) as file:
        assert file.files[0] == "arr_0", "the name that the ADM suite reads"


def test_more_samples_begin_with_the_same_noise(weights: Path, run: Run) -> None:
    """Wrong: sample i would depend on how many there are (labels are shuffled, so unlabelled drawing is used)."""
    uniform = run.sampling.model_copy(update={"labels": "uniform"})
    for count in (5, 9):
        changed = spec(run, count).model_copy(update={"sampling": uniform})
        sample_run(changed, weights, RunFolder(Path(f"run{count}")))
    with np.load("run5/samples.npz") as few, np.load("run9/samples.npz") as many:
        assert np.abs(few["arr_0"].astype(int) - many["arr_0"][:5]).max() <= 1


def test_grid_shows_the_samples(weights: Path, run: Run) -> None:
    """Wrong: the picture in the report would not be of these samples."""
    sample_run(spec(run, 20), weights, RunFolder(Path("run")))
    with np.load("run/samples.npz") as file, Image.open("run/samples.png") as grid:
        pixels = np.asarray(grid)
        first = file["arr_0"][file["labels"] == 0][0]
    assert pixels.shape == (2 + 2 * 66, 150 + 8 * 66, 3)
    np.testing.assert_array_equal(pixels[2:66:8, 150:214:8], first)


def test_grid_has_ten_classes_at_most() -> None:
    """Wrong: a thousand classes would make a picture of 64,000 rows."""
    images = np.zeros((24, 4, 4, 3), np.uint8)
    labels = np.repeat(np.arange(12), 2)
    grid = sample_grid(images, labels, [f"class {i}" for i in range(14)])
    assert grid.size[1] == 10 * 66 + 2


def test_missing_data_are_noticed_before_sampling(weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: hours of sampling would be lost for want of the names of the classes."""
    from dip.sampling import generate

    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("sampled before the data were looked at")

    monkeypatch.setattr(generate, "sample", never)
    Store.of("photos").manifest.unlink()
    with pytest.raises(ValueError, match="prepare it again"):
        sample_run(spec(run, 2), weights, RunFolder(Path("run")))
    assert not Path("run").exists()


def test_missing_or_other_weights_leave_nothing(weights: Path, run: Run) -> None:
    """Wrong: half a result, or samples of random weights."""
    with pytest.raises(ValueError, match=r"absent\.safetensors: not a readable safetensors file"):
        sample_run(spec(run, 2), Path("absent.safetensors"), RunFolder(Path("run")))
    wider = spec(run, 2).model_copy(update={"model": run.model.model_copy(update={"hidden_size": 32})})
    with pytest.raises(ValueError, match="of another architecture"):
        sample_run(wider, weights, RunFolder(Path("run")))
    assert not Path("run").exists()


@pytest.mark.parametrize(("num_samples", "num_classes"), [(50, 10), (53, 10), (7, 10), (1000, 3)])
def test_balanced_labels_differ_by_one_at_most(num_samples: int, num_classes: int) -> None:
    """Wrong: FID would be of another mixture of classes than the reference's."""
    labels = sample_labels("balanced", num_samples, num_classes, seed=0)
    counts = np.bincount(labels, minlength=num_classes)
    assert labels.dtype == np.int64 and len(labels) == num_samples
    assert counts.max() - counts.min() <= 1


def test_labels_are_shuffled_and_fixed_by_the_seed() -> None:
    """Wrong: chunks of the Inception Score would hold few classes, or labels would change between calls."""
    labels = sample_labels("balanced", 1000, 10, seed=0)
    np.testing.assert_array_equal(labels, sample_labels("balanced", 1000, 10, seed=0))
    assert (labels != sample_labels("balanced", 1000, 10, seed=1)).any()
    assert np.bincount(labels[:200], minlength=10).min() > 5
    assert (labels != np.arange(1000) % 10).mean() > 0.8 and (labels != np.sort(labels)).mean() > 0.8


def test_uniform_labels_are_drawn() -> None:
    """Wrong: labels out of range, or some never drawn."""
    counts = np.bincount(sample_labels("uniform", 10_000, 10, seed=0), minlength=10)
    assert len(counts) == 10 and counts.min() > 850 and counts.max() < 1150
    assert counts.max() - counts.min() > 1
