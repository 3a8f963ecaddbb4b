"""Published weights and the state that a training goes on from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from dip.training.checkpoint import FORMAT, StateFolder, load_weights, save_weights
from full_disk import full_disk


def test_weights_come_back_with_their_parameters(tmp_path: Path) -> None:
    """Wrong: samples would come from other weights, or nobody could tell how they were trained."""
    model, other = nn.Linear(3, 2), nn.Linear(3, 2)
    path = tmp_path / "model.safetensors"
    save_weights(path, model.state_dict(), '{"a": 1}')
    load_weights(path, other)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["training"] == '{"a": 1}'


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(4, 2), r"another architecture: 'weight' has shape \(2, 3\), the model needs \(2, 4\)"),
        (nn.Linear(3, 2, bias=False), r"another architecture: the model has no 'bias'"),
        (nn.Bilinear(3, 3, 2), r"another architecture: 'weight' has shape \(2, 3\), the model needs \(2, 3, 3\)"),
        (nn.Sequential(nn.Linear(3, 2)), r"another architecture: it has no '0.weight' of shape \(2, 3\)"),
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, model: nn.Module, message: str) -> None:
    """Wrong: some layers would silently stay random, or torch's own long message would appear."""
    path = tmp_path / "model.safetensors"
    save_weights(path, nn.Linear(3, 2).state_dict(), "{}")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"model\.safetensors: of {message}"):
        load_weights(path, model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("content", [None, b"", b"text, not tensors", "cut"])
def test_unreadable_weights_are_named(tmp_path: Path, content: bytes | str | None) -> None:
    """Wrong: a traceback, or a pickle from outside would be opened."""
    path = tmp_path / "model.safetensors"
    if content == "cut":
        save_weights(path, nn.Linear(3, 2).state_dict(), "{}")
        path.write_bytes(path.read_bytes()[:-3])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: not a readable safetensors file .*; train the run again"
    ):
        load_weights(path, nn.Linear(3, 2))


def state(step: int) -> dict[str, object]:
    return {"model": {"w": torch.full((1000,), float(step))}, "step": step, "log": [{"loss": 0.5}]}


def test_newest_of_two_states_is_loaded(tmp_path: Path) -> None:
    """Wrong: a training would go back further than it must, or fill the disk."""
    folder = StateFolder(tmp_path)
    assert folder.find() is None and folder.newest() is None
    for step in (2, 10, 100):
        folder.save(step, state(step))
    step = folder.find()
    assert step == 100 == folder.newest()
    content = folder.read(100)
    assert content["log"] == [{"loss": 0.5}]
    assert torch.equal(content["model"]["w"], torch.full((1000,), 100.0))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"state-{step:08d}.{kind}" for step in (10, 100) for kind in ("json", "pt")
    ]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "json", "no text"])
def test_damaged_state_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Wrong: a bit that fell over would go into the result, or all progress would be lost."""
    folder = StateFolder(tmp_path)
    folder.save(1, state(1))
    folder.save(2, state(2))
    newest = tmp_path / "state-00000002.pt"
    content = bytearray(newest.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        newest.write_bytes(content)
    elif damage == "cut":
        newest.write_bytes(content[:-100])
    elif damage == "gone":
        newest.unlink()
    else:
        newest.with_suffix(".json").write_bytes(b"{" if damage == "json" else b"\x93\xff")
    with caplog.at_level(logging.WARNING):
        assert folder.find() == 1
    assert "state-00000002.pt is damaged" in caplog.text and "going back to the one before" in caplog.text


def with_a_damaged_state(path: Path) -> StateFolder:
    """States of steps 2 and 4, of which the latter is damaged."""
    folder = StateFolder(path)
    for step in (2, 4):
        folder.save(step, state(step))
    (path / "state-00000004.pt").write_bytes(b"")
    return folder


def test_damaged_state_does_not_take_the_place_of_a_good_one(tmp_path: Path) -> None:
    """Wrong: after going back, the two states that are kept would be one good and one damaged."""
    folder = with_a_damaged_state(tmp_path)
    folder.save(3, state(3))
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["state-00000002.pt", "state-00000003.pt"]


def test_damaged_state_is_not_kept_as_the_spare(tmp_path: Path) -> None:
    """Wrong: the good state that the training went on from would be removed, and the damaged one kept in its place."""
    folder = with_a_damaged_state(tmp_path)
    assert folder.find() == 2
    folder.save(5, state(5))
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["state-00000002.pt", "state-00000005.pt"]


def test_state_that_is_saved_again_in_the_place_of_a_damaged_one_is_kept(tmp_path: Path) -> None:
    """Wrong: the training would come to the step of the damaged state once more, and remove what it has just saved."""
    folder = with_a_damaged_state(tmp_path)
    assert folder.find() == 2
    folder.save(4, state(4))
    assert folder.find() == folder.newest() == 4


def test_files_of_other_names_are_no_states(tmp_path: Path) -> None:
    """Wrong: a copy that a person made beside them would end the call with an error of int()."""
    folder = StateFolder(tmp_path)
    folder.save(2, state(2))
    (tmp_path / "state-before.json").write_text("{}")
    assert folder.find() == folder.newest() == 2
    folder.save(3, state(3))
    assert (tmp_path / "state-before.json").exists()


@pytest.mark.parametrize("difference", ["newer", "older", "training"])
def test_state_of_another_version_or_another_training_is_refused(tmp_path: Path, difference: str) -> None:
    """Wrong: an older state would be taken and the newer one lost, or other parameters' weights would be used."""
    folder = StateFolder(tmp_path, "a training")
    folder.save(1, state(1))
    folder.save(2, state(2))
    record = tmp_path / "state-00000002.json"
    if difference == "training":
        folder, message = StateFolder(tmp_path, "another"), "of a training with other parameters or data"
    else:
        content = json.loads(record.read_text())
        content["format"] = FORMAT + 1
        if difference == "older":
            del content["format"]
        record.write_text(json.dumps(content))
        version = FORMAT + 1 if difference == "newer" else 1
        message = f"of format {version}, and this version of the code reads {FORMAT}; go on with the version"
    with pytest.raises(ValueError, match=rf"state-00000002\.pt: a checkpoint {message}"):
        folder.find()


def test_state_without_its_checksum_was_not_finished(tmp_path: Path) -> None:
    """Wrong: a call that was killed between the two files would leave a state that nothing vouches for."""
    folder = StateFolder(tmp_path)
    folder.save(1, state(1))
    folder.save(2, state(2))
    (tmp_path / "state-00000002.json").unlink()
    assert folder.find() == 1


def test_litter_of_a_killed_call_is_removed(tmp_path: Path) -> None:
    """Wrong: every kill in the middle of a save would cost the size of a checkpoint for ever."""
    (tmp_path / ".state-00000001.pt.abc.tmp").write_bytes(b"half")
    assert StateFolder(tmp_path).find() is None
    assert not list(tmp_path.iterdir())


def test_full_disk_leaves_earlier_files_and_says_so(tmp_path: Path) -> None:
    """Wrong: the last good checkpoint would be lost, or torch's internal error would appear instead of the reason."""
    folder, weights = StateFolder(tmp_path), tmp_path / "model.safetensors"
    folder.save(1, state(1))
    save_weights(weights, nn.Linear(3, 2).state_dict(), "{}")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    large = {"w": torch.zeros(100_000)}
    with full_disk(100_000):
        with pytest.raises(OSError, match=r"File too large.*state-00000002"):
            folder.save(2, large)
        with pytest.raises(OSError, match=r"File too large.*model\.safetensors"):
            save_weights(weights, large, "{}")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
