"""Samples of a run: the same for any batch size, in the ADM format."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dip.model import build_model
from dip.paths import RunFolder, Store
from dip.random import Stream, noise
from dip.sampling import workers
from dip.sampling.draw import draw_images, load_sampler, sample_labels
from dip.sampling.fast import FastSampler
from dip.sampling.generate import sample_grid, sample_run
from dip.sampling.shards import Shards
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


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_do_not_depend_on_the_batch_size(weights: Path, run: Run, precision: str) -> None:
    """Wrong: results would change with the memory of the machine, or with where sampling was interrupted."""
    sampling = run.sampling.model_copy(update={"precision": precision})
    chosen = spec(run, 20).model_copy(update={"sampling": sampling})
    found = []
    for batch_size in (1, 7, 64):
        target = RunFolder(Path(f"run{batch_size}"))
        sample_run(chosen, weights, target, batch_size=batch_size)
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


def content(folder: str) -> list[bytes]:
    """Bytes of everything that a sampling writes."""
    target = RunFolder(Path(folder))
    assert sorted(path.name for path in target.folder.iterdir()) == ["samples.json", "samples.npz", "samples.png"]
    return [path.read_bytes() for path in (target.samples, target.grid, target.sampling)]


def test_going_on_after_a_failure_gives_the_same_bytes(
    weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: what was made before an interruption would be made again, or the result would depend on it."""
    settings = {"batch_size": 3, "shard_size": 5}  # shards of 6
    sample_run(spec(run, 20), weights, RunFolder(Path("whole")), **settings)
    drawn: list[int] = []
    limits = [3, 5]  # in the middle of the second shard, then before the third
    draw_images = workers.draw_images

    def failing(model: object, spec: object, labels: np.ndarray, *rest: object) -> object:
        if len(drawn) in limits:
            limits.remove(len(drawn))
            raise OSError("no room")
        drawn.append(len(labels))
        return draw_images(model, spec, labels, *rest)

    monkeypatch.setattr(workers, "draw_images", failing)
    while limits:
        with pytest.raises(OSError, match="no room"):
            sample_run(spec(run, 20), weights, RunFolder(Path("broken")), **settings)
        assert not Path("broken/samples.npz").exists()
    sample_run(spec(run, 20), weights, RunFolder(Path("broken")), **settings)
    assert drawn == [3] * 7 + [2], "one batch more than in one go: the first of the shard that was lost"
    assert content("broken") == content("whole")


def test_shards_of_other_settings_are_not_mixed_in(weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: after a change of weights or guidance the first half would still be of the old ones."""
    target = RunFolder(Path("run"))
    changed = run.sampling.model_copy(update={"cfg_scale": 3.0})
    other = spec(run, 20).model_copy(update={"sampling": changed})
    sample_run(other, weights, RunFolder(Path("other")), batch_size=4, shard_size=4)

    def fails(self: Shards, *arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "merge", fails)
        with pytest.raises(KeyboardInterrupt):
            sample_run(spec(run, 20), weights, target, batch_size=4, shard_size=4)
    assert len(list(target.folder.glob("shards-*/*.npz"))) == 5
    sample_run(other, weights, target, batch_size=4, shard_size=4)
    assert content("run") == content("other"), "and the shards that nobody needs any more are gone"


def test_shards_are_found_again_for_the_same_work_only(
    weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: images of other weights, of another rounding or of other noise would be merged into one set."""

    def folder(path: Path = weights, batch: int = 2, device: str = "cpu", speed: str = "fast", seed: int = 0) -> Path:
        chosen = spec(run, 6).model_copy(update={"sampling": run.sampling.model_copy(update={"seed": seed})})
        arguments = path, RunFolder(Path("run")), batch, 2, torch.device(device), speed
        return workers.Work.of(chosen, *arguments).shards.folder

    other = weights.with_name("other.safetensors")
    other.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    changes = [{"path": other}, {"batch": 1}, {"device": "cuda"}, {"speed": "plain"}, {"seed": 1}]
    folders = [folder(), *(folder(**change) for change in changes)]
    assert folder() == folders[0]
    monkeypatch.setattr(workers, "dtype_name", lambda precision, device: "float16")
    folders.append(folder())
    assert len(set(folders)) == len(changes) + 2


def test_samples_are_written_last(weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: after a kill what waits for the samples would find them without what they were made with."""
    target, there, merge = RunFolder(Path("run")), [], Shards.merge

    def watched(self: Shards, *arguments: object) -> None:
        there.extend([target.sampling.exists(), target.grid.exists()])
        merge(self, *arguments)

    monkeypatch.setattr(Shards, "merge", watched)
    sample_run(spec(run, 4), weights, target)
    assert there == [True, True]


def test_several_processes_share_the_shards(weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: processes would make the same shards, disagree about the images, or write the file twice."""
    settings = {"batch_size": 2, "shard_size": 2}
    sample_run(spec(run, 20), weights, RunFolder(Path("one")), **settings)
    made: list[int] = []
    write = Shards.write
    monkeypatch.setattr(Shards, "write", lambda self, shard, *rest: (made.append(shard), write(self, shard, *rest))[1])
    target = RunFolder(Path("three"))
    stop = Shards.claim

    def at_most_four(self: Shards, first: int) -> object:
        return stop(self, first) if len(made) % 4 or not made else contextlib.nullcontext()

    place = {"WORLD_SIZE": "3", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for rank in (2, 1, 0):  # as if the others had been lost after four shards each
        for name, value in {**place, "RANK": str(rank)}.items():
            monkeypatch.setenv(name, value)
        with monkeypatch.context() as patch:
            if rank > 0:
                patch.setattr(Shards, "claim", at_most_four)
            sample_run(spec(run, 20), weights, target, **settings)
        assert target.samples.exists() == (rank == 0)
        if rank > 0:
            made.append(-1)  # so that the next one may begin
    assert made == [6, 7, 8, 9, -1, 3, 4, 5, -1, 0, 1, 2]
    assert content("three") == content("one")


def test_a_process_that_comes_late_does_nothing(weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: it would begin all over when the others have merged and tidied up."""
    target = RunFolder(Path("run"))
    sample_run(spec(run, 4), weights, target)
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    before = content("run")
    sample_run(spec(run, 4), weights, target)
    assert content("run") == before


def test_joining_takes_something_to_join(weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a job array would make shards that nobody merges; or would merge while others are at work."""
    target = RunFolder(Path("run"))
    with pytest.raises(ValueError, match=r"no sampling to join, .* of this batch size, .* without --join, or"):
        sample_run(spec(run, 6), weights, target, join=True)
    work = workers.Work.of(spec(run, 6), weights, target, 2, 2, torch.device("cpu"), "fast")
    work.shards.folder.mkdir(parents=True)
    sample_run(spec(run, 6), weights, target, batch_size=2, shard_size=2, join=True)
    assert work.shards.missing() == [] and not target.samples.exists()
    sample_run(spec(run, 6), weights, target, batch_size=2, shard_size=2)
    sample_run(spec(run, 6), weights, RunFolder(Path("alone")), batch_size=2, shard_size=2)
    assert content("run") == content("alone")


def test_one_who_joined_and_slept_ends_with_the_others(weights: Path, run: Run) -> None:
    """Wrong: it would draw all samples again, which others have merged meanwhile."""
    work = workers.Work.of(spec(run, 6), weights, RunFolder(Path("run")), 2, 2, torch.device("cpu"), "fast")
    sampler = load_sampler(spec(run, 6), weights, torch.device("cpu"))
    for wait in (False, True):
        workers.make_shards(work, sampler, 0.0, wait=wait)
    assert not work.shards.folder.exists()


def test_what_a_kill_left_of_merged_shards_is_in_nobody_s_way(weights: Path, run: Run) -> None:
    """Wrong: the next sampling would fail at its end."""
    work = workers.Work.of(spec(run, 4), weights, RunFolder(Path("run")), 2, 2, torch.device("cpu"), "fast")
    left = work.shards.folder.with_suffix(".done") / "000000.npz"
    left.parent.mkdir(parents=True)
    left.touch()
    sample_run(spec(run, 4), weights, RunFolder(Path("run")), batch_size=2, shard_size=2)
    assert sorted(path.name for path in Path("run").iterdir()) == ["samples.json", "samples.npz", "samples.png"]


def test_settings_stand_beside_the_samples(weights: Path, run: Run) -> None:
    """Wrong: nobody could tell with which weights, solver and guidance the images were made."""
    sample_run(spec(run, 4), weights, RunFolder(Path("run")))
    found = json.loads(Path("run/samples.json").read_text())
    assert found["sampling"] == run.sampling.model_dump(mode="json")
    assert found["weights"] == {
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "average": "ema",
        "ema_decay": 0.5,
        "epochs": 4,
    }
    assert (found["num_samples"], found["nfe"], found["num_function_evaluations"]) == (4, "4x2", 8)
    assert found["devices"] and found["versions"]["packages"]


def test_samples_that_are_not_numbers_are_refused(weights: Path, run: Run) -> None:
    """Wrong: they would become black images, and FID would be measured on those."""
    state = build_model(run.model, 8, 2).state_dict()
    name = next(name for name in state if name.startswith("head.") and name.endswith("bias"))
    state[name][0] = float("nan")
    save_weights(weights, state, "{}")
    with pytest.raises(ValueError, match="samples with NaN or infinity; see whether the losses"):
        sample_run(spec(run, 4), weights, RunFolder(Path("run")))
    assert not Path("run/samples.npz").exists()


def test_seed_changes_the_noise(weights: Path, run: Run) -> None:
    """Wrong: sets of samples of several seeds would be the same images."""
    labels, found = np.zeros(4, np.int64), []
    sampler = load_sampler(spec(run, 4), weights, torch.device("cpu"))
    for seed in (0, 1):
        chosen = spec(run, 4).model_copy(update={"sampling": run.sampling.model_copy(update={"seed": seed})})
        found.append(draw_images(sampler, chosen, labels, [(i,) for i in range(4)]))
    assert all((one != other).any() for one, other in zip(*found, strict=True))


def test_noise_of_a_sample_is_that_of_the_seed_and_its_counters(run: Run) -> None:
    """Wrong: another version would draw other samples from the same weights and seed."""
    seen: list[torch.Tensor] = []

    class Seeing:
        device = torch.device("cpu")

        def __call__(self, x_0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            seen.append(x_0)
            return x_0

    chosen = spec(run, 2).model_copy(update={"sampling": run.sampling.model_copy(update={"seed": 3})})
    draw_images(Seeing(), chosen, np.array([1, 2]), [(4, 0), (4, 1)])
    expected = noise(3, Stream.SAMPLING_NOISE, [(4, 0), (4, 1)], (3, 8, 8), torch.device("cpu"))
    assert torch.equal(seen[0], expected)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_no_class_has_are_named(weights: Path, run: Run, label: int) -> None:
    """Wrong: "index out of range in self", and on a GPU an error that only a new process gets rid of."""
    sampler = load_sampler(spec(run, 2), weights, torch.device("cpu"))
    draw_images(sampler, spec(run, 2), np.array([0, 2]), [(0,), (1,)])  # 2 is "no class"
    with pytest.raises(ValueError, match=f"there is no label {label}; labels are 0 to 2, the last"):
        draw_images(sampler, spec(run, 2), np.array([0, label]), [(0,), (1,)])


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
    assert all((pixels[top : top + 64, :150] < 128).any() for top in (2, 68)), "the name of each class"


def test_grid_has_ten_classes_at_most() -> None:
    """Wrong: a thousand classes would make a picture of 64,000 rows."""
    images = np.zeros((24, 4, 4, 3), np.uint8)
    labels = np.repeat(np.arange(12), 2)
    grid = sample_grid(images, labels, [f"class {i}" for i in range(14)])
    assert grid.size[1] == 10 * 66 + 2


def test_grid_fits_what_it_shows() -> None:
    """Wrong: most of it would be white where classes have few samples; beside large images nobody could read names."""
    heights = []
    for side, margin in ((64, 150), (256, 300)):
        images = np.zeros((5, side, side, 3), np.uint8)
        grid = sample_grid(images, np.array([0, 1, 0, 2, 0]), ["tench", "goldfish", "great white shark"])
        assert grid.size[0] == margin + 3 * (side + 2)
        names = np.asarray(grid.convert("L"))[:, : margin - 10]
        heights.append((names < 128).any(axis=1).sum())
    assert heights[1] > 1.5 * heights[0]


def test_names_of_classes_may_have_any_letters() -> None:
    """Wrong: a box would stand for every letter beyond ASCII, the same one."""
    image, label = np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1, np.int64)
    grids = {sample_grid(image, label, [name]).tobytes() for name in ("é", "ü", "ж", "λ")}
    assert len(grids) == 4


def test_missing_data_are_noticed_before_sampling(weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: hours of sampling would be lost for want of the names of the classes."""

    def never(*arguments: object, **settings: object) -> None:
        raise AssertionError("sampled before the data were looked at")

    monkeypatch.setattr(FastSampler, "__call__", never)
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
    assert sample_labels("balanced", 12, 4, seed=0).tolist() == [0, 3, 0, 1, 2, 1, 2, 3, 3, 0, 1, 2], "of any version"
    assert (labels != sample_labels("balanced", 1000, 10, seed=1)).any()
    assert np.bincount(labels[:200], minlength=10).min() > 5
    assert (labels != np.arange(1000) % 10).mean() > 0.8 and (labels != np.sort(labels)).mean() > 0.8


def test_uniform_labels_are_drawn() -> None:
    """Wrong: labels out of range, or some never drawn, or the same ones for every seed."""
    drawn = [sample_labels("uniform", 99, 10, seed=seed) for seed in (0, 1)]
    assert (drawn[0] != drawn[1]).any()
    assert drawn[0][:6].tolist() == [3, 4, 4, 3, 5, 2], "of any version"
    counts = np.bincount(sample_labels("uniform", 10_000, 10, seed=0), minlength=10)
    assert len(counts) == 10 and counts.min() > 850 and counts.max() < 1150
    assert counts.max() - counts.min() > 1
