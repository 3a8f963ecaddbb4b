"""Re-checking a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dip import cli, params
from dip.data.manifest import read_manifest
from dip.data.verify import verify
from dip.files import sha256, write_json
from dip.paths import Store


def check(store: Store, **changes: object) -> None:
    verify("photos", params.load().datasets["photos"].model_copy(update=changes), store)


@pytest.fixture
def store(workplace: Path) -> Store:
    return Store.of("photos")


def test_true_store_passes(store: Store) -> None:
    """Wrong: nobody would trust the check."""
    assert verify("photos", params.load().datasets["photos"], store, num_workers=2).num_images == 16


@pytest.mark.parametrize("part", ["shards", "labels", "index"])
@pytest.mark.parametrize("damage", ["bit", "cut", "gone"])
def test_every_damaged_file_is_named(store: Store, part: str, damage: str) -> None:
    """Wrong: a flipped bit on a disk would be trained on."""
    manifest = read_manifest(store)
    path = store.folder / (manifest.shards[0] if part == "shards" else getattr(manifest, part)).file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content[:-1] if damage == "cut" else content)
    if damage == "gone":
        path.unlink()
    with pytest.raises(ValueError, match=rf"{path.name}: .*\nprepare it again with `dip prepare photos`"):
        check(store)


def test_other_settings_and_counts_are_named(store: Store) -> None:
    """Wrong: a store could be right by itself, and not be what params.yaml asks for."""
    with pytest.raises(ValueError, match=r"prepared with image_size = 8, params\.yaml says 16; seed = 0, .* says 1"):
        check(store, image_size=16, seed=1)
    manifest = read_manifest(store)
    labels = store.folder / manifest.labels.file
    np.save(labels, np.zeros(16, np.int64))
    content = manifest.model_dump(mode="json")
    content["labels"]["sha256"] = sha256(labels)
    write_json(store.manifest, content)
    with pytest.raises(ValueError, match="the labels are not as many of each class as the manifest says"):
        check(store)


def test_missing_store_is_named(tmp_path: Path, store: Store) -> None:
    """Wrong: a traceback instead of what to do."""
    with pytest.raises(ValueError, match=r"nowhere: no usable dataset .* `dip prepare nowhere`"):
        check(Store(tmp_path / "nowhere"))


@pytest.mark.usefixtures("store")
def test_command_says_what_was_checked(caplog: pytest.LogCaptureFixture) -> None:
    """Wrong: silence would have to be taken for a good sign."""
    with caplog.at_level("INFO"):
        cli.main(["verify", "photos", "--workers", "1"])
    assert "16 images in 1 shard(s): all in order" in caplog.text
