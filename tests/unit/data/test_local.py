"""A copy of a store on the node's own disk."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from dip.data.dataset import ImageStore
from dip.data.local import LOCAL_DATA, nearest_store
from dip.paths import Store


@pytest.fixture
def store(workplace: Path) -> Store:
    return Store.of("photos")


def test_nothing_is_copied_unless_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: every training would copy the data, wherever it runs."""
    monkeypatch.delenv(LOCAL_DATA, raising=False)
    assert nearest_store(store) == store


def test_copy_is_made_once_and_completed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: each process of a node would copy, or half a copy would be read."""
    monkeypatch.setenv(LOCAL_DATA, str(tmp_path / "scratch"))
    copy = nearest_store(store)
    assert copy.folder.parent == tmp_path / "scratch"
    assert copy.manifest.read_bytes() == store.manifest.read_bytes()
    np.testing.assert_array_equal(ImageStore(copy).images[:], ImageStore(store).images[:])
    times = {path: path.stat().st_mtime_ns for path in copy.folder.iterdir() if path.name != ".lock"}
    assert nearest_store(store) == copy
    assert {path: path.stat().st_mtime_ns for path in times} == times
    copy.manifest.unlink()  # what a killed copy leaves
    shard = next(copy.folder.glob("images-*.npy"))
    shard.write_bytes(shard.read_bytes()[:-1])
    nearest_store(store)
    np.testing.assert_array_equal(ImageStore(copy).images[:], ImageStore(store).images[:])
    assert copy.manifest.exists()


def test_other_data_go_to_another_folder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a training would go on with data that have been prepared anew."""
    monkeypatch.setenv(LOCAL_DATA, str(tmp_path / "scratch"))
    first = nearest_store(store)
    store.manifest.write_text(store.manifest.read_text().replace("coins", "money"))
    assert nearest_store(store) != first


def test_without_room_the_store_itself_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: a training would end for want of a copy that changes no result."""
    monkeypatch.setenv(LOCAL_DATA, str(tmp_path / "scratch"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("dip.data.local.shutil.disk_usage", lambda path: usage._replace(free=10))
    with caplog.at_level(logging.WARNING):
        assert nearest_store(store) == store
    assert "no copy of the data (no room: 0.0 GB needed" in caplog.text


@pytest.mark.parametrize("damage", ["gone", "short"])
def test_copy_that_has_lost_data_is_completed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Wrong: a node that clears its disk would end every later training on it."""
    monkeypatch.setenv(LOCAL_DATA, str(tmp_path / "scratch"))
    copy = nearest_store(store)
    shard = next(copy.folder.glob("images-*.npy"))
    content = shard.read_bytes()
    shard.unlink()
    if damage == "short":
        shard.write_bytes(content[:-1])
    assert nearest_store(store) == copy
    assert shard.read_bytes() == content


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("at", ["locked", "atomic_copy"])
def test_where_no_copy_can_be_written_the_store_itself_is_read(
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: int,
    at: str,
) -> None:
    """Wrong: a read-only disk, or one that others fill while the data are copied, would end the training."""

    def refuse(*paths: Path) -> None:
        raise OSError(error, os.strerror(error), str(paths[-1]))

    monkeypatch.setenv(LOCAL_DATA, str(tmp_path / "scratch"))
    monkeypatch.setattr(f"dip.data.local.{at}", refuse)
    with caplog.at_level(logging.WARNING):
        assert nearest_store(store) == store
    assert f"no copy of the data ([Errno {error}]" in caplog.text and "reading data/photos itself" in caplog.text
