"""How a store is cut into shards, and which of them are written again."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import TURNED, content_of, encoded, picture, write_folder

from dip.data import shards
from dip.data.dataset import ImageStore
from dip.data.decode import decode
from dip.data.manifest import read_manifest
from dip.data.prepare import prepare
from dip.data.verify import verify
from dip.paths import Store

Files = dict[str, bytes]
Make = Callable[..., Any]


def test_shards_are_about_a_gigabyte() -> None:
    """Wrong: a store would have a million files or one, or a small one would keep a single core busy."""
    for size, num_shards in ((256, 235), (512, 939)):
        per_shard = shards.images_per_shard(1_281_167, size)
        assert 0.99e9 < per_shard * 3 * size**2 <= 2**30
        assert -(-1_281_167 // per_shard) == num_shards
    assert 10 < 2000 / shards.images_per_shard(2000, 256) < 16
    assert shards.images_per_shard(1, 10_000) > 0 and shards.images_per_shard(1, 100_000) == 1


@pytest.mark.usefixtures("small_shards")
def test_shard_that_is_cut_off_is_written_again(tmp_path: Path, files: Files, settings: Make, store: Store) -> None:
    """Wrong: half a shard would be taken for a finished one."""
    source = write_folder(tmp_path / "train", files)
    prepare("x", settings(source), store)
    before = content_of(store)
    shard = store.folder / read_manifest(store).shards[1].file
    shard.write_bytes(shard.read_bytes()[:-1])
    prepare("x", settings(source), store)
    assert content_of(store) == before


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("lost", [[], ["manifest.json"], ["labels-*.npy"], ["manifest.json", "labels-*.npy"]])
def test_damaged_shard_is_written_again(
    tmp_path: Path, files: Files, settings: Make, store: Store, decoded: list[bytes], lost: list[str]
) -> None:
    """Wrong: `dip verify` would send to `dip prepare`, which would publish the damaged shard once more."""
    dataset = settings(write_folder(tmp_path / "train", files))
    prepare("x", dataset, store)
    before = content_of(store)
    shard = store.folder / read_manifest(store).shards[1].file
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match="prepare it again"):
        verify("x", dataset, store)
    decoded.clear()
    for path in itertools.chain.from_iterable(map(store.folder.glob, lost)):
        path.unlink()  # damaged as well; or the manifest by Snakemake, which deletes outputs before it starts a job
    prepare("x", dataset, store)
    assert content_of(store) == before
    assert decoded == [files[name] for name in sorted(files)[2:4]], "what is right stays"
    verify("x", dataset, store)


@pytest.mark.usefixtures("small_shards")
def test_shards_of_an_interrupted_preparation_are_not_read(
    tmp_path: Path, files: Files, settings: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: to go on would take as long as to read hundreds of gigabytes."""
    dataset = settings(write_folder(tmp_path / "train", files))
    with monkeypatch.context() as patch:
        patch.setattr("dip.data.prepare.publish", never)
        with pytest.raises(AssertionError):
            prepare("x", dataset, store)
    monkeypatch.setattr(shards, "sha256", never)
    prepare("x", dataset, store)


def test_shard_of_upright_images_is_no_shard_of_imagenet(
    tmp_path: Path, own: Make, settings: Make, store: Store
) -> None:
    """Wrong: a dataset that becomes an ImageNet would keep images that ADM does not turn."""
    content = encoded(picture(8, 8), "PNG", exif=TURNED)
    source = write_folder(tmp_path / "train", {"n01440764/1.png": content})
    for make, upright in ((own, True), (settings, False)):
        prepare("x", make(source, num_classes=1, num_images=1), store)
        np.testing.assert_array_equal(ImageStore(store).images[0], decode(content, 8, upright=upright))


def never(*arguments: Any, **options: Any) -> str:
    raise AssertionError(f"called with {arguments}")


@pytest.mark.usefixtures("small_shards")
def test_replaced_file_is_decoded_again(
    tmp_path: Path, files: Files, settings: Make, store: Store, decoded: list[bytes]
) -> None:
    """Wrong: a damaged file that was replaced would stay missing, or everything would be decoded again."""
    damaged = {**files, "n02110341/n02110341_1.JPEG": b"damaged"}
    source = write_folder(tmp_path / "train", damaged)
    with pytest.raises(ValueError, match=r"write num_images: 4, and run again: the rest stays done"):
        prepare("x", settings(source, max_skipped=0.5), store)
    write_folder(source, files)
    decoded.clear()
    prepare("x", settings(source), store)
    assert decoded == [files["n02110341/n02110341_1.JPEG"]]
    prepare("x", settings(source), Store(tmp_path / "fresh"))
    assert content_of(store) == content_of(Store(tmp_path / "fresh"))


@pytest.mark.usefixtures("small_shards")
def test_a_mended_file_of_the_same_size_is_noticed(tmp_path: Path, files: Files, settings: Make, store: Store) -> None:
    """Wrong: "replace them and run again" would not help where a download had left zeros in the place of a file."""
    name = "n02110341/n02110341_1.JPEG"
    source = write_folder(tmp_path / "train", {**files, name: bytes(len(files[name]))})
    with pytest.raises(ValueError, match=f"the first is {name}"):
        prepare("x", settings(source, max_skipped=0.5), store)
    (source / name).write_bytes(files[name])
    prepare("x", settings(source, max_skipped=0.5), store)
    assert not read_manifest(store).skipped and len(ImageStore(store)) == len(files)
