"""Training: exact resume, and what it refuses to go on with."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from trainings import changed, log, use_encoder

from dip.paths import Store
from dip.schema import Alignment, TrainingSpec
from dip.training import checkpoint, loop
from dip.training.loop import train


def assert_same(work: Path, expected: Path) -> None:
    """Weights and milestones to the byte, and the log."""
    for name in ("model.safetensors", "milestone-0002.safetensors"):
        assert (work / name).read_bytes() == (expected / name).read_bytes(), name
    assert log(work) == log(expected)
    assert not list(work.glob("*state-*")), "the state of a finished training is removed"


_once: dict[str, Path] = {}


@pytest.fixture
def uninterrupted(workplace: Path, spec: TrainingSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work folder of a training that nothing interrupted: a copy, free to edit."""
    if spec.canonical() not in _once:
        _once[spec.canonical()] = tmp_path_factory.mktemp("uninterrupted") / "work"
        train(spec, _once[spec.canonical()])
    return shutil.copytree(_once[spec.canonical()], workplace / "uninterrupted")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Ctrl-C right after a number of checkpoints."""
    original, count = checkpoint.StateFolder.save, 0

    def save(self: checkpoint.StateFolder, step: int, state: dict[str, Any]) -> None:
        nonlocal count
        original(self, step, state)
        count += 1
        if count == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.StateFolder, "save", save)


def test_training_learns_and_writes_what_it_did(uninterrupted: Path, spec: TrainingSpec) -> None:
    """Wrong: the optimiser would not move the weights, or the run folder would lack part of the contract."""
    records = log(uninterrupted)
    assert [record["step"] for record in records] == list(range(2, 17, 2))
    assert records[-1]["epoch"] == 4 and records[-1]["learning_rate"] == 1e-2
    assert records[-1]["loss"] < records[0]["loss"]
    assert records[0]["loss"] == records[0]["velocity_loss"] and "alignment_loss" not in records[0]
    assert all(record["gradient_norm"] > 0 and record["loss_spike"] is False for record in records)
    lines = [json.loads(line) for line in (uninterrupted / "training.jsonl").read_text().splitlines()]
    hours = [line["gpu_hours"] for line in lines]
    assert hours == sorted(hours) and hours[0] > 0
    assert all(0 <= line["data_wait"] <= 1 and line["memory_gib"] > 0.01 for line in lines)
    content = json.loads((uninterrupted / "params.json").read_text())
    weights = load_file(uninterrupted / "model.safetensors")
    assert content["run"] == json.loads(spec.canonical())
    assert content["finished_step"] == 16 and content["device"] and content["packages"]["torch"]
    assert content["num_parameters"] == sum(value.numel() for value in weights.values())


@pytest.mark.parametrize("saves", [1, 2, 5, 8, 15])
def test_interrupted_training_ends_as_if_it_had_not_been(
    uninterrupted: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    """Wrong: a result would depend on preemptions. Odd steps lie inside a line of the log, step 8 is a milestone."""
    work = Path("interrupted")
    with monkeypatch.context() as patch:
        interrupt_after(patch, saves)
        with pytest.raises(KeyboardInterrupt):
            train(spec, work, save_steps=1)
    assert not (work / "model.safetensors").exists()
    train(spec, work)
    assert_same(work, uninterrupted)


@pytest.mark.parametrize("settings", [{"save_seconds": 0}, {"sample_every": 3}])
def test_what_a_training_does_beside_learning_changes_nothing(
    uninterrupted: Path, spec: TrainingSpec, settings: dict[str, Any]
) -> None:
    """Wrong: the result would depend on how often checkpoints are written or samples drawn."""
    train(spec, Path("other"), **settings)
    assert_same(Path("other"), uninterrupted)


def test_gradient_checkpointing_gives_the_same_numbers(
    uninterrupted: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: where a training runs would change its result; or nothing would be computed again."""
    from dip.model.backbone import DiTBlock

    original, calls = DiTBlock.forward, []

    def forward(self: DiTBlock, *arguments: Any) -> torch.Tensor:
        calls.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(DiTBlock, "forward", forward)
    train(spec, Path("again"), gradient_checkpointing=True)
    assert len(calls) == 2 * spec.model.depth * spec.num_steps
    assert_same(Path("again"), uninterrupted)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from dip.schema import TrainingSpec
from dip.training.loop import train

original, saves = torch.save, 0

def save(state, file):
    global saves
    saves += 1
    if saves == 3:
        file.write(b"half a checkpoint")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    original(state, file)

torch.save = save
torch.set_num_threads(int(sys.argv[3]))
train(TrainingSpec.parse(sys.argv[1]), Path(sys.argv[2]), save_steps=2)
"""


@pytest.mark.slow
def test_training_killed_while_it_saves_goes_on(uninterrupted: Path, spec: TrainingSpec) -> None:
    """Wrong: kill -9 would leave a checkpoint that cannot be read, or change the result."""
    work = Path("killed")
    arguments = [sys.executable, "-c", KILLED, spec.canonical(), str(work), str(torch.get_num_threads())]
    assert subprocess.run(arguments, capture_output=True, env=os.environ.copy()).returncode == -signal.SIGKILL
    assert sorted(path.name for path in work.glob("state-*.pt")) == ["state-00000002.pt", "state-00000004.pt"]
    assert list(work.glob(".state-*.tmp")), "the save was cut off in the middle"
    train(spec, work)
    assert_same(work, uninterrupted)


def test_damaged_checkpoint_falls_back_to_the_one_before(
    uninterrupted: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: a damaged file would end the training, or go into its result."""
    work = Path("damaged")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(spec, work, save_steps=2)
    newest = work / "state-00000006.pt"
    newest.write_bytes(newest.read_bytes()[:-50])
    with caplog.at_level(logging.INFO):
        train(spec, work)
    assert "state-00000006.pt is damaged" in caplog.text
    assert "resuming at step 4 of 16" in caplog.text
    assert_same(work, uninterrupted)


def test_milestone_is_what_a_shorter_training_gives(uninterrupted: Path, spec: TrainingSpec) -> None:
    """Wrong: the row at 160 epochs would not be the weights of epoch 160 (the schedule is constant)."""
    train(changed(spec, epochs=2, milestones=()), Path("shorter"))
    shorter = load_file("shorter/model.safetensors")
    milestone = load_file(uninterrupted / "milestone-0002.safetensors")
    assert shorter.keys() == milestone.keys()
    assert all(torch.equal(value, milestone[name]) for name, value in shorter.items())


def test_kill_while_checkpoints_are_removed(workplace: Path, spec: TrainingSpec) -> None:
    """Wrong: two checkpoints of 10 GB would stay with every training that ended so."""
    work = Path("work")
    work.mkdir()
    for name in ("model.safetensors", "state-00000002.pt", ".state-00000004.pt.abc.tmp", "milestone-0002.safetensors"):
        (work / name).touch()
    train(spec, work)
    assert sorted(path.name for path in work.iterdir()) == ["milestone-0002.safetensors", "model.safetensors"]


@pytest.mark.slow
def test_averages_of_other_decays_are_those_of_trainings_of_their_own(
    uninterrupted: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: a point of a sweep would be other weights than its decay gives, or would change those of the main one."""
    several, work = changed(spec, ema_decays=(0.9, 0.0)), Path("several")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 11)
        with pytest.raises(KeyboardInterrupt):
            train(several, work, save_steps=1)
    train(several, work)
    assert log(work) == log(uninterrupted)
    for decay, average in ((0.5, ""), (0.9, "-ema0.9"), (0.0, "-ema0.0")):
        alone = uninterrupted
        if decay != 0.5:
            alone = Path(f"alone{decay}")
            train(changed(spec, ema_decay=decay), alone)
        last = "model" if decay == 0.5 else f"milestone-0004{average}"
        for kept, expected in ((f"milestone-0002{average}", "milestone-0002"), (last, "model")):
            weights, own = load_file(work / f"{kept}.safetensors"), load_file(alone / f"{expected}.safetensors")
            assert weights.keys() == own.keys()
            assert all(torch.equal(value, own[name]) for name, value in weights.items()), (decay, kept)


def test_a_training_with_one_average_is_what_it_was(spec: TrainingSpec) -> None:
    """Wrong: a version of the code that can follow several would train everything again, and change published bytes."""
    content = json.loads(spec.canonical())["training"]
    assert content["ema_decay"] == 0.5 and "ema_decays" not in content
    assert json.loads(changed(spec, ema_decays=(0.9,)).canonical())["training"]["ema_decays"] == [0.9]


def test_full_disk_stops_the_training_and_it_can_go_on(
    uninterrupted: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: a full disk would destroy the checkpoint that the training could go on from."""
    work, original, saves = Path("full"), torch.save, 0

    def save(state: Any, file: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(OSError, match=r"No space left on device: 'full/state-00000006\.pt'"):
            train(spec, work, save_steps=2)
    assert sorted(path.name for path in work.glob("*state*")) == [
        f"state-0000000{step}.{kind}" for step in (2, 4) for kind in ("json", "pt")
    ]
    train(spec, work)
    assert_same(work, uninterrupted)


@pytest.fixture
def small_disk(workplace: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = workplace / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_training_on_a_disk_that_is_full_for_a_while(
    uninterrupted: Path, small_disk: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: on a real full disk the error would be another, or half a file would stay and be taken for a whole one."""
    work, filler = small_disk / "work", small_disk / "filler"
    original = checkpoint.StateFolder.save

    def save(self: checkpoint.StateFolder, step: int, state: dict[str, Any]) -> None:
        if step == 6:
            with contextlib.suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(4096))
        original(self, step, state)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.StateFolder, "save", save)
        # The thread that saves meets it first, or the loop with the weights of a milestone.
        with pytest.raises(OSError, match=r"No space left on device: '.*(state-00000006\.pt|milestone-0002.*)'"):
            train(spec, work, save_steps=2)
    assert sorted(path.name for path in work.glob("*state*")) == [
        f"state-0000000{step}.{kind}" for step in (2, 4) for kind in ("json", "pt")
    ]
    with pytest.raises(OSError, match="No space left on device"):
        train(spec, work, save_steps=2)
    filler.unlink()
    train(spec, work, save_steps=2)
    assert_same(work, uninterrupted)


def test_data_must_be_those_of_the_spec(workplace: Path, spec: TrainingSpec) -> None:
    """Wrong: a training on an older preparation would pass as one on the current settings."""
    dataset = spec.dataset.model_copy(update={"crops_per_class": 9})
    with pytest.raises(ValueError, match=r"data/photos: it was prepared with crops_per_class = 8, params\.yaml says 9"):
        train(spec.model_copy(update={"dataset": dataset}), Path("work"))


def test_batch_that_does_not_divide_is_refused_before_anything_is_made(workplace: Path, spec: TrainingSpec) -> None:
    """Wrong: some images would count more than others, or the error would come after hours."""
    with pytest.raises(ValueError, match=r"has 4 images of a batch, which is not divisible by the micro-batch of 3"):
        train(spec, Path("work"), micro_batch=3)
    assert not Path("work").exists()


def test_folder_that_cannot_be_written_to(workplace: Path, spec: TrainingSpec) -> None:
    """Wrong: an hour would be spent before the first checkpoint fails."""
    Path("file").write_text("")
    with pytest.raises(OSError, match="'file/work'"):
        train(spec, Path("file/work"))


@pytest.mark.parametrize("difference", ["parameters", "data"])
def test_state_of_another_training_is_refused(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch, difference: str
) -> None:
    """Wrong: weights of other parameters, or of an earlier preparation of the data, would go into the result."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            train(spec, Path("work"), save_steps=2)
    if difference == "parameters":
        spec = changed(spec, learning_rate=1e-3)
    else:
        manifest = Store.of("photos").manifest
        manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ValueError, match=r"work/state-0000000\d\.pt: a checkpoint of a training with other parameters"):
        train(spec, Path("work"))


def test_state_aligned_with_another_encoder_is_refused(
    workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: a model that was aligned with two encoders would be published as that of one."""
    aligned = changed(spec, alignment=Alignment(block=1))
    use_encoder(monkeypatch, "a" * 64)
    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        interrupt_after(patch, saves=1)
        train(aligned, Path("work"), save_steps=2)
    use_encoder(monkeypatch, "b" * 64)
    with pytest.raises(ValueError, match="a checkpoint of a training with other parameters or data"):
        train(aligned, Path("work"))
    use_encoder(monkeypatch, "a" * 64)
    train(aligned, Path("work"))
    assert json.loads(Path("work/params.json").read_text())["encoder_sha256"] == "a" * 64


def test_seed_changes_the_training(uninterrupted: Path, spec: TrainingSpec) -> None:
    """Wrong: repetitions with other seeds would be the same numbers."""
    train(changed(spec, seed=1), Path("other"))
    assert log(Path("other"))[0]["loss"] != log(uninterrupted)[0]["loss"]


def test_weights_are_written_last(workplace: Path, spec: TrainingSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a call that is killed before it has written the rest would leave what passes for a finished training."""
    there: list[str] = []
    original = loop.save_weights

    def save_weights(path: Path, *rest: Any) -> None:
        if path.name == "model.safetensors":
            there.extend(file.name for file in path.parent.iterdir())
        original(path, *rest)

    monkeypatch.setattr(loop, "save_weights", save_weights)
    train(changed(spec, ema_decays=(0.9,), epochs=1, milestones=()), Path("work"))
    assert set(there) >= {"milestone-0001-ema0.9.safetensors", "params.json", "training.csv", "training.jsonl"}
