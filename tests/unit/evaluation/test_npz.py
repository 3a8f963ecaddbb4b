"""If these fail, sample or reference files are misread, or broken ones pass."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from dip.evaluation.npz import load_images, load_reference, write_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "write", [np.savez, np.savez_compressed, lambda path, arr_0: write_npz(path, {"arr_0": arr_0})]
)
def test_reads_what_numpy_writes(write, tmp_path):
    """Stored and compressed; and numpy reads ours."""
    path = tmp_path / "samples.npz"
    write(path, arr_0=IMAGES)
    assert np.array_equal(load_images(path), IMAGES)
    assert np.array_equal(np.load(path)["arr_0"], IMAGES)


def test_stored_images_are_mapped_not_read(tmp_path):
    """50,000 images of 256 x 256 are 9.8 GB: they are not to be held in memory."""
    np.savez(tmp_path / "samples.npz", labels=np.arange(5), arr_0=IMAGES)
    images = load_images(tmp_path / "samples.npz")
    assert isinstance(images, np.memmap)
    assert np.array_equal(images, IMAGES)
    assert not images.flags.writeable


def test_fortran_order_is_understood(tmp_path):
    """Numpy writes arrays in this order as they are."""
    np.savez(tmp_path / "samples.npz", arr_0=np.asfortranarray(IMAGES))
    assert np.array_equal(load_images(tmp_path / "samples.npz"), IMAGES)
    write_npz(tmp_path / "again.npz", {"arr_0": np.asfortranarray(IMAGES)})
    assert np.array_equal(load_images(tmp_path / "again.npz"), IMAGES)


def test_the_same_arrays_give_the_same_bytes(tmp_path):
    """Checksums of references stand in metrics.json: they must not change with the clock."""
    for name in ("a", "b"):
        write_npz(tmp_path / name, {"arr_0": IMAGES, "metadata": np.array("text"), "mu": np.arange(3.0)})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    content = np.load(tmp_path / "a")
    assert str(content["metadata"]) == "text"
    assert np.array_equal(content["mu"], np.arange(3.0))


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    """Nothing half-written may take its place."""
    path = tmp_path / "samples.npz"
    write_npz(path, {"arr_0": IMAGES})
    before = path.read_bytes()
    with pytest.raises(ValueError, match="arrays of Python objects"):
        write_npz(path, {"arr_0": IMAGES, "mu": np.array([object()])})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGES.astype(np.float32) / 255, "expected uint8 values"),
        (IMAGES.transpose(0, 3, 1, 2), "transpose"),
        (IMAGES[..., 0], "colour images"),
        (IMAGES[:0], "no images"),
        (np.array([object()]), "pickled objects"),
    ],
)
def test_refuses_other_arrays(array, message, tmp_path):
    """What was found, and what was expected."""
    np.savez(tmp_path / "samples.npz", arr_0=array)
    with pytest.raises(ValueError, match=message):
        load_images(tmp_path / "samples.npz")


def test_refuses_files_that_are_not_npz(tmp_path):
    """Missing, another format, truncated, damaged, or without arr_0."""
    path = tmp_path / "samples.npz"
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_images(path)
    path.write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match="not an npz file, or a truncated one"):
        load_images(path)
    np.savez(path, arr_0=IMAGES)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not an npz file, or a truncated one"):
        load_images(path)
    np.savez(path, images=IMAGES)
    with pytest.raises(ValueError, match="expected images under the key arr_0, found images"):
        load_images(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"no numpy header")
    with pytest.raises(ValueError, match="cannot read arr_0"):
        load_images(path)
    np.savez_compressed(path, arr_0=np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    content[5000:5100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read arr_0"):
        load_images(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_refuses_damaged_files(save, tmp_path):
    """Flipped bits anywhere: metrics of other images would come out, or a traceback of the decompressor."""
    path = tmp_path / "samples.npz"
    save(path, arr_0=np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8))
    content = path.read_bytes()
    end = content.rindex(b"PK\1\2")
    for position in (60, 70, 90, 150, 500, end // 2, end - 40):
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"samples\.npz: .*write or download it again"):
                load_images(path)


def npy_of_images(path):
    """What stands as `arr_0.npy` in an npz of `IMAGES` at this path."""
    np.savez(path, arr_0=IMAGES)
    with zipfile.ZipFile(path) as archive:
        return archive.read("arr_0.npy")


def test_refuses_headers_that_promise_more_than_there_is(tmp_path):
    """What follows in the file would be counted as images."""
    path = tmp_path / "samples.npz"
    content = npy_of_images(path)
    shape = f"({len(IMAGES)}, ".encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", content.replace(shape, f"({len(IMAGES) + 1}, ".encode()))
        archive.writestr("more.npy", bytes(10000))
    with pytest.raises(ValueError, match="which are not those of uint8"):
        load_images(path)


def statistics(d=4, spatial=6):
    return {"mu": np.zeros(d), "sigma": np.eye(d), "mu_s": np.zeros(spatial), "sigma_s": np.eye(spatial)}


def test_reference_of_the_adm_release(tmp_path):
    """Statistics and images under ADM's names; the number of images behind the statistics is not in the file."""
    np.savez(tmp_path / "reference.npz", arr_0=IMAGES, **statistics())
    reference = load_reference(tmp_path / "reference.npz")
    assert np.array_equal(reference.images, IMAGES)
    assert (len(reference.pool.mean), len(reference.spatial.mean)) == (4, 6)
    assert reference.pool.num_samples is None


def test_refuses_references_with_half_of_the_statistics(tmp_path):
    """A file without mu_s has no sFID; a covariance of another size belongs to another mean."""
    path = tmp_path / "reference.npz"
    kept = {name: array for name, array in statistics().items() if not name.endswith("_s")}
    np.savez(path, arr_0=IMAGES, **kept)
    with pytest.raises(ValueError, match="has some statistics but not mu_s, sigma_s: sFID needs"):
        load_reference(path)
    np.savez(path, arr_0=IMAGES, **{**statistics(), "sigma": np.eye(5)})
    with pytest.raises(ValueError, match=r"reference.npz: its statistics .*expected a mean of shape \(d,\)"):
        load_reference(path)
    np.savez(path, arr_0=IMAGES, **statistics(), metadata=np.array("[1]"))
    with pytest.raises(ValueError, match="its metadata is no JSON object but a list"):
        load_reference(path)
    np.savez(path, arr_0=IMAGES, **{**statistics(), "mu_s": np.full(6, np.nan)})
    with pytest.raises(ValueError, match="NaN or infinity"):
        load_reference(path)


def test_names_in_folders_are_other_names(tmp_path):
    """A file zipped by hand would be said to lack arr_0 and to have it, or end in a traceback."""
    path = tmp_path / "reference.npz"
    np.savez(path, **{"reference/arr_0": IMAGES})
    with pytest.raises(ValueError, match="expected images under the key arr_0, found reference/arr_0"):
        load_images(path)
    np.savez(path, **{"arr_0": IMAGES, **{f"statistics/{name}": array for name, array in statistics().items()}})
    assert load_reference(path).pool is None
    np.savez(path, **{"arr_0": IMAGES, "mu": np.zeros(4), "statistics/sigma": np.eye(4)})
    with pytest.raises(ValueError, match="has some statistics but not sigma, mu_s, sigma_s"):
        load_reference(path)


def test_refuses_statistics_that_are_no_numbers(tmp_path):
    """The message would be NumPy's, about some text, without the key or what to do."""
    path = tmp_path / "reference.npz"
    np.savez(path, arr_0=IMAGES, **{**statistics(), "sigma": np.full((4, 4), "a")})
    with pytest.raises(
        ValueError, match=r"reference\.npz: sigma is an array of <U1, not of numbers: write or download"
    ):
        load_reference(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mu": np.full(4, np.inf)}, "mu has NaN or infinity, the features behind it were not finite"),
        ({"sigma": np.full((4, 4), 1e200)}, r"sigma has numbers up to 1\.0e\+200, too large for features"),
        ({"sigma_s": -np.eye(6)}, "sigma_s has variances below 0, it is no covariance"),
        ({"mu": np.zeros((1, 4))}, r"its statistics cannot be used \(expected a mean of shape \(d,\)"),
        ({"mu": np.zeros(4, "M8[s]")}, r"mu is an array of datetime64\[s\], not of numbers"),
    ],
)
def test_refuses_statistics_that_cannot_be_those_of_features(changed, message, tmp_path):
    """A distance of infinity would be told after hours, as a number that JSON does not have."""
    path = tmp_path / "reference.npz"
    np.savez(path, arr_0=IMAGES, **{**statistics(), **changed})
    with pytest.raises(ValueError, match=rf"reference\.npz: {message}.*: write or download it again"):
        load_reference(path)


@pytest.mark.parametrize("half", [np.float16, np.float32, ">f8", np.longdouble])
def test_statistics_may_have_any_precision(half, tmp_path):
    """A reference of others would be refused, or warn."""
    np.savez(tmp_path / "reference.npz", arr_0=IMAGES, **{k: v.astype(half) for k, v in statistics().items()})
    assert load_reference(tmp_path / "reference.npz").pool.covariance.dtype == np.float64


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ('{"num_images": "40"}', r"not that of a reference \(num_images: Input should be a valid integer\)"),
        ('{"num_images": 1}', r"num_images: Input should be greater than or equal to 2"),
        ('{"num_images": NaN}', r"num_images: Input should be a valid integer"),
        ('{"name": ["a"]}', r"name: Input should be a valid string"),
        ('{"extractor_sha256": 3}', r"extractor_sha256: Input should be a valid string"),
        ('{"extractor_sha256": "0"}', r"extractor_sha256: String should match"),
        ("[" * 100_000, r"not JSON \((maximum recursion depth|Stack overflow)"),
        ("", r"not JSON \(Expecting value"),
    ],
)
def test_refuses_metadata_that_is_not_a_reference_s(metadata, message, tmp_path):
    """A traceback after hours of features, or a distance with the rank of another number of images."""
    path = tmp_path / "reference.npz"
    np.savez(path, arr_0=IMAGES, **statistics(), metadata=np.array(metadata))
    with pytest.raises(
        ValueError, match=rf"reference\.npz: its metadata is {'' if 'not' in message else '.*'}{message}"
    ):
        load_reference(path)


def test_metadata_may_have_more(tmp_path):
    """References of a later version could not be read."""
    content = np.array('{"num_images": 7, "name": "seven", "packages": {}, "more": [1]}')
    np.savez(tmp_path / "reference.npz", arr_0=IMAGES, **statistics(), metadata=content)
    metadata = load_reference(tmp_path / "reference.npz").metadata
    assert (metadata.name, metadata.num_images, metadata.extractor_sha256) == ("seven", 7, None)


def test_refuses_what_goes_on_behind_its_array(tmp_path):
    """A damaged file would be taken for a whole one, and its checksum never be compared."""
    path = tmp_path / "samples.npz"
    content = npy_of_images(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", content + bytes(10000))
    with pytest.raises(ValueError, match="which are more than those of uint8"):
        load_images(path)
