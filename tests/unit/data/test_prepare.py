"""From a source to a store: what comes out, what stays after an interruption, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from image_files import TURNED, content_of, encoded, picture, write_folder, write_parquet, write_tar_of_tars

from dip.data import shards
from dip.data.crop import center_crop
from dip.data.dataset import ImageStore
from dip.data.decode import decode
from dip.data.manifest import read_manifest
from dip.data.photographs import training_crops
from dip.data.prepare import prepare
from dip.files import sha256
from dip.paths import Store
from dip.schema import ImageFolder, ImageNet, Photographs
from full_disk import full_disk

Files = dict[str, bytes]
Make = Callable[..., Any]


def test_photographs_become_a_store(store: Store) -> None:
    """Wrong: the manifest, on which the state of trainings depends, would not describe the data."""
    settings = Photographs(kind="photographs", image_size=8, photographs=("coins", "chelsea"), crops_per_class=3)
    prepare("photos", settings, store)
    images = ImageStore(store, settings)
    assert images.images.shape == (6, 8, 8, 3) and len(images) == 6 and images.labels.tolist() == [0, 1] * 3
    assert images.class_names == ["coins", "chelsea"]
    np.testing.assert_array_equal(images.images[:], training_crops(settings)[0])
    manifest = read_manifest(store)
    assert manifest.settings == settings and manifest.images_per_class == (3, 3)
    assert all(file.sha256 == sha256(store.folder / file.file) for file in manifest.files)
    first = content_of(store)
    prepare("photos", settings, store)
    assert content_of(store) == first, "preparing again changes nothing"


def test_large_arrays_are_cut_into_shards(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a file would grow without limit, or images would change places."""
    settings = Photographs(kind="photographs", image_size=8, photographs=("coins", "chelsea"), crops_per_class=4)
    prepare("photos", settings, store)
    whole = ImageStore(store).images[:]
    monkeypatch.setattr("dip.data.prepare.SHARD_BYTES", 3 * 8 * 8 * 3 + 1)
    prepare("photos", settings, store)
    assert [shard.images for shard in read_manifest(store).shards] == [3, 3, 2]
    np.testing.assert_array_equal(ImageStore(store).images[:], whole)
    assert len(list(store.folder.glob("images-*"))) == 3, "shards of the earlier store are removed"


@pytest.mark.usefixtures("small_shards")
def test_images_come_in_order_with_their_labels(tmp_path: Path, files: Files, settings: Make, store: Store) -> None:
    """Wrong: labels would not be those of the sorted synsets, or pixels not ADM's."""
    prepare("x", settings(write_folder(tmp_path / "train", files)), store)
    images, names = ImageStore(store), sorted(files)
    assert images.labels.tolist() == [0, 0, 0, 1, 1]
    assert images.class_names == ["tench", "dalmatian"]
    manifest = read_manifest(store)
    assert manifest.pillow == PIL.__version__, "other versions may decode to other pixels"
    assert manifest.source.classes == ("n01440764", "n02110341") and manifest.images_per_class == (3, 2)
    assert [shard.images for shard in manifest.shards] == [2, 2, 1]
    for place, name in enumerate(names):
        np.testing.assert_array_equal(images.images[place], decode(files[name], 8, upright=False))
    with (store.folder / manifest.index.file).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["origin"] for row in rows] == names
    for place, row in enumerate(rows):
        shard = np.load(store.folder / row["file"])
        np.testing.assert_array_equal(shard[int(row["row"])], images.images[place])
        assert int(row["label"]) == images.labels[place]


@pytest.mark.usefixtures("small_shards")
def test_layout_of_the_source_does_not_matter(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: two people with two downloads of ImageNet would train on different data."""
    ordered = dict(sorted(files.items()))
    parquet = write_parquet(tmp_path / "hf/a.parquet", list(ordered.values()), [0, 0, 0, 1, 1])
    sources = {
        "folder": write_folder(tmp_path / "train", files),
        "tar": write_tar_of_tars(tmp_path / "train.tar", files),
        "parquet": parquet.parent,
    }
    stores = {layout: Store(tmp_path / "stores" / layout) for layout in sources}
    for layout, path in sources.items():
        prepare("x", settings(path), stores[layout])
        assert read_manifest(stores[layout]).source.layout == layout
    shards_of = {
        layout: [(shard.images, shard.sha256) for shard in read_manifest(store).shards]
        for layout, store in stores.items()
    }
    assert shards_of["folder"] == shards_of["tar"] == shards_of["parquet"]
    first, second = (content_of(stores[layout]) for layout in ("folder", "tar"))
    assert [name for name in first if first[name] != second[name]] == ["manifest.json"], "names the layout"


def test_own_images_are_turned_upright(tmp_path: Path, own: Make, store: Store) -> None:
    """Wrong: photographs of a telephone would lie on their side."""
    content = encoded(picture(8, 8), "PNG", exif=TURNED)
    prepare("mine", own(write_folder(tmp_path / "in", {"a.png": content}), num_classes=1, num_images=1), store)
    np.testing.assert_array_equal(ImageStore(store).images[0], decode(content, 8, upright=True))


@pytest.mark.usefixtures("small_shards")
def test_number_of_workers_changes_nothing(tmp_path: Path, files: Files, settings: Make) -> None:
    """Wrong: the data would depend on the machine that prepared them."""
    source = write_folder(tmp_path / "train", files)
    stores = [Store(tmp_path / "1"), Store(tmp_path / "2")]
    for num_workers, store in enumerate(stores, start=1):
        prepare("x", settings(source), store, num_workers=num_workers)
    assert content_of(stores[0]) == content_of(stores[1])


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.usefixtures("small_shards")
def test_finished_shards_stay(
    tmp_path: Path, files: Files, settings: Make, store: Store, decoded: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: hours of decoding would be lost with a killed job, or the result would differ."""
    source = write_folder(tmp_path / "train", files)
    prepare("x", settings(source), Store(tmp_path / "whole"))
    watching = shards.decode

    def die(content: bytes, *arguments: Any, **options: Any) -> np.ndarray:
        if len(decoded) == 8:
            raise Killed
        return watching(content, *arguments, **options)

    monkeypatch.setattr(shards, "decode", die)
    with pytest.raises(Killed):
        prepare("x", settings(source), store)
    assert not store.manifest.exists()
    (store.folder / ".images-00001.npy.1.tmp").write_bytes(b"left by a kill")
    monkeypatch.setattr(shards, "decode", watching)
    decoded.clear()
    prepare("x", settings(source), store)
    assert decoded == [files[name] for name in sorted(files)[2:]], "the first shard was done"
    assert content_of(store) == content_of(Store(tmp_path / "whole"))
    decoded.clear()
    store.manifest.unlink()  # as Snakemake does before it runs the rule again
    prepare("x", settings(source), store)
    assert not decoded and content_of(store) == content_of(Store(tmp_path / "whole"))


@pytest.mark.usefixtures("small_shards")
def test_unreadable_files_are_listed(
    tmp_path: Path, files: Files, settings: Make, store: Store, decoded: list[bytes]
) -> None:
    """Wrong: images would be missing without a word, labels would be shifted, or the count would be wrong."""
    names = sorted(files)
    damaged = {**files, names[1]: files[names[1]][:-200], names[4]: b"text"}
    source = write_folder(tmp_path / "train", damaged)
    with pytest.raises(
        ValueError, match=rf"num_images is 5, and 3 images can be read; 2 cannot, .* {names[1]} \(OSError"
    ):
        prepare("x", settings(source, max_skipped=0.5), store)
    assert not store.manifest.exists()
    decoded.clear()
    prepare("x", settings(source, max_skipped=0.5, num_images=3), store)
    assert decoded == [damaged[names[1]], damaged[names[4]]], "what was done stays done"
    images, manifest = ImageStore(store), read_manifest(store)
    assert images.labels.tolist() == [0, 0, 1] and [shard.images for shard in manifest.shards] == [1, 2]
    assert [(found.name, found.why.split(":")[0]) for found in manifest.skipped] == [
        (names[1], "OSError"),
        (names[4], "not an image of a known format"),
    ]
    for place, name in enumerate((names[0], names[2], names[3])):
        np.testing.assert_array_equal(images.images[place], decode(files[name], 8, upright=False))


@pytest.mark.parametrize("layout", ["classes", "loose"])
def test_link_to_a_file_that_is_gone_is_an_unreadable_image(
    tmp_path: Path, own: Make, store: Store, layout: str
) -> None:
    """Wrong: one file of a million, on a disk that is not there, would end the preparation."""
    folder = tmp_path / "images" / ("cat" if layout == "classes" else "")
    write_folder(folder, {"a.png": encoded(picture()), "c.png": encoded(picture())})
    (folder / "b.png").symlink_to(tmp_path / "absent.png")
    prepare("x", own(tmp_path / "images", num_classes=1, num_images=2, max_skipped=0.5), store)
    (skipped,) = read_manifest(store).skipped
    assert skipped.name.endswith("b.png") and skipped.why == "empty file, a pipe, or a link to a file that is gone"


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("num_workers", [1, 2])
def test_too_many_unreadable_files_end_it(
    tmp_path: Path, files: Files, settings: Make, store: Store, num_workers: int
) -> None:
    """Wrong: half of ImageNet could be missing, or the store that was there would be lost."""
    source = write_folder(tmp_path / "train", files)
    prepare("x", settings(source), store)
    before = content_of(store)
    names = sorted(files)
    write_folder(source, {names[0]: b"text", names[3]: b"text"})
    message = r"\d of 5 images cannot be read, more than datasets\.x\.max_skipped = 0\.1 allows; the first is n0"
    with pytest.raises(ValueError, match=message):
        prepare("x", settings(source, max_skipped=0.1), store, num_workers=num_workers)
    assert json.loads(store.skipped.read_text())[0]["why"] == "not an image of a known format"
    after = content_of(store)
    assert {name: after[name] for name in before} == before
    assert len(ImageStore(store)) == 5
    write_folder(source, files)
    prepare("x", settings(source), store)
    assert content_of(store) == before, "what the failed call left is removed"


def test_class_without_readable_images_is_refused(tmp_path: Path, files: Files, settings: Make, store: Store) -> None:
    """Wrong: a class would never be learned."""
    damaged = {name: b"text" if name.startswith("n02") else content for name, content in files.items()}
    source = write_folder(tmp_path / "train", damaged)
    with pytest.raises(ValueError, match="no image of class 'n02110341' can be read"):
        prepare("x", settings(source, max_skipped=1.0, num_images=3), store)
    assert not store.manifest.exists()


def test_missing_source_leaves_nothing(tmp_path: Path, settings: Make, store: Store) -> None:
    """Wrong: an empty store would look like one."""
    with pytest.raises(ValueError, match="there is nothing at"):
        prepare("x", settings(tmp_path / "nowhere"), store)
    assert not store.folder.exists()


@pytest.mark.usefixtures("small_shards")
def test_other_settings_replace_the_store_at_the_end(
    tmp_path: Path, files: Files, settings: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: the earlier store would be gone before there is a new one, or its files would stay for ever."""
    source = write_folder(tmp_path / "train", files)
    prepare("x", settings(source), store)
    before = content_of(store)
    with monkeypatch.context() as patch:
        # All but the manifest is there: labels, which are the same, and an index of other shards.
        patch.setattr("dip.data.manifest.write_json", lambda *arguments: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            prepare("x", settings(source, image_size=4), store)
    assert {name: content for name, content in content_of(store).items() if name in before} == before
    prepare("x", settings(source, image_size=4), store)
    prepare("x", settings(source, image_size=4), Store(tmp_path / "fresh"))
    assert content_of(store) == content_of(Store(tmp_path / "fresh"))
    with pytest.raises(ValueError, match=r"store: it was prepared with image_size = 4, params\.yaml says 8: prepare"):
        ImageStore(store, settings(source))


@pytest.mark.usefixtures("small_shards")
def test_full_disk_is_an_error_that_names_the_file(
    tmp_path: Path, files: Files, settings: Make, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: the process would die of SIGBUS, or leave half a shard behind."""
    source = write_folder(tmp_path / "train", files)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("dip.data.prepare.shutil.disk_usage", lambda path: usage._replace(free=100))
        with pytest.raises(OSError, match=r"the store takes 0\.0 GB, .* free; make room, or make data/ a link"):
            prepare("x", settings(source), store)
    photos = Photographs(kind="photographs", image_size=8, photographs=("coins", "chelsea"), crops_per_class=3)
    for dataset in (settings(source), photos):
        with full_disk(300), pytest.raises(OSError, match=r"File too large: '.*/images-00000-\w+\.npy'"):
            prepare("x", dataset, store)
        assert content_of(store) == {}
    prepare("x", settings(source), store)


def test_imagenet_s_settings_have_no_path() -> None:
    """Wrong: to move ImageNet, or to accept unreadable files, would train everything again."""
    here = ImageNet(kind="imagenet", image_size=8, source="/here", max_skipped=0.5)
    assert here.canonical() == ImageNet(kind="imagenet", image_size=8).canonical()
    mine = ImageFolder(kind="folder", image_size=8, source="/here", num_classes=1, num_images=1)
    assert "/here" not in mine.canonical()


def test_crop_of_the_right_size_is_unchanged_in_the_store(tmp_path: Path, own: Make, store: Store) -> None:
    """Wrong: images prepared by someone else at this size would be blurred."""
    image = picture(8, 8)
    source = write_folder(tmp_path / "in", {"a/1.png": encoded(image, "PNG"), "b/1.png": encoded(image, "PNG")})
    prepare("mine", own(source, num_images=2), store)
    np.testing.assert_array_equal(ImageStore(store).images[1], np.asarray(image))
    np.testing.assert_array_equal(center_crop(image, 8), np.asarray(image))
