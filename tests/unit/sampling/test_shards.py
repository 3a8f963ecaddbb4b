"""Shards: whole or not there, made by whoever holds them, merged into one file."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dip.sampling.shards import Shards

LABELS = np.arange(10, dtype=np.int64)


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    """Three shards of ten samples."""
    (tmp_path / "shards").mkdir()
    return Shards(tmp_path / "shards", num_samples=10, size=4, image_size=2)


def images_of(shards: Shards, shard: int) -> NDArray[np.uint8]:
    samples = shards.samples(shard)
    return np.stack([np.full((2, 2, 3), i, np.uint8) for i in samples])


def test_shards_cover_the_samples(shards: Shards) -> None:
    """Wrong: a sample would be missing or made twice."""
    assert [list(shards.samples(shard)) for shard in range(len(shards))] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_merged_in_the_order_of_the_samples(shards: Shards, tmp_path: Path) -> None:
    """Wrong: samples would stand in the order in which processes made them; or bytes would depend on it."""
    contents = []
    for order in ([0, 1, 2], [2, 0, 1]):
        for shard in order:
            shards.write(shard, images_of(shards, shard), f"device {shard % 2}")
        path = tmp_path / "samples.npz"
        shards.merge(path, LABELS)
        contents.append(path.read_bytes())
        assert shards.missing() == [] and shards.num_made() == 10
        assert shards.devices() == ["device 0", "device 1"]
        assert shards.image(5)[0, 0, 0] == 5
        for shard in order:
            (shards.folder / f"{shard:06d}.npz").unlink()
    assert contents[0] == contents[1]
    with np.load(path) as file:
        assert file.files == ["arr_0", "labels"]
        assert file["arr_0"][:, 0, 0, 0].tolist() == list(range(10))
        np.testing.assert_array_equal(file["labels"], LABELS)


def test_merged_file_is_numpys(shards: Shards, tmp_path: Path) -> None:
    """Wrong: what other projects' tools read would differ from what np.savez writes."""
    for shard in range(3):
        shards.write(shard, images_of(shards, shard), "cpu")
    shards.merge(tmp_path / "samples.npz", LABELS)
    with np.load(tmp_path / "samples.npz") as file:
        np.savez(tmp_path / "numpy.npz", **file)
    assert (tmp_path / "samples.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()


def test_a_shard_that_is_held_is_passed_over(shards: Shards) -> None:
    """Wrong: two processes would make the same shard; or one that died would keep its shard for ever."""
    with shards.claim(1) as first:
        assert first == 1
        with shards.claim(1) as second:
            assert second == 2, "the next one"
            with shards.claim(1) as third:
                assert third == 0, "around the end"
                with shards.claim(1) as fourth:
                    assert fourth is None
    with shards.claim(1) as again:
        assert again == 1
    shards.write(1, images_of(shards, 1), "cpu")
    with shards.claim(1) as next_one:
        assert next_one == 2


def test_a_damaged_shard_is_removed_and_named(shards: Shards, tmp_path: Path) -> None:
    """Wrong: garbage would reach the samples, or every later call would fail on the same file."""
    for read in (lambda: shards.merge(tmp_path / "samples.npz", LABELS), shards.devices):
        for shard in range(3):
            shards.write(shard, images_of(shards, shard), "cpu")
        path = shards.folder / "000001.npz"
        path.write_bytes(path.read_bytes()[:-50])
        with pytest.raises(ValueError, match=r"damaged shard, now removed .*000001\.npz.*run the same command again"):
            read()
        assert not (tmp_path / "samples.npz").exists()
        assert shards.missing() == [1]
    np.savez(shards.folder / "000001.npz", arr_0=images_of(shards, 1), metadata=np.array('{"device": 1}'))
    with pytest.raises(ValueError, match=r"damaged shard, now removed \(its metadata names no device\)"):
        shards.devices()
    shards.write(1, images_of(shards, 0)[:3], "cpu")
    with pytest.raises(ValueError, match=r"shape \(3, 2, 2, 3\), expected \(4, 2, 2, 3\)"):
        shards.merge(tmp_path / "samples.npz", LABELS)


def test_what_a_killed_merge_left_is_removed(shards: Shards, tmp_path: Path) -> None:
    """Wrong: every kill during the merge would leave 10 GB behind."""
    for shard in range(3):
        shards.write(shard, images_of(shards, shard), "cpu")
    partial = tmp_path / ".samples.npz.abc.tmp"
    partial.write_bytes(b"half")
    shards.merge(tmp_path / "samples.npz", LABELS)
    assert not partial.exists()


def test_waiting_for_a_lock(shards: Shards) -> None:
    """Wrong: two processes would merge at the same time."""
    order = []

    def merge() -> None:
        with shards.hold("merge") as held:
            order.append(held)

    with shards.hold("merge"), shards.hold("merge", wait=False) as refused:
        assert not refused
        thread = threading.Thread(target=merge)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", True]
