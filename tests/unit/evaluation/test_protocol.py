"""If these fail, a metrics file says something other than what was measured."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from dip.evaluation import Statistics, frechet_distance, inception_score, precision_recall, protocol
from dip.evaluation.features import extract
from dip.evaluation.npz import load_reference
from dip.evaluation.patch_grid import patch_grid
from dip.evaluation.protocol import evaluate, write_reference


@pytest.fixture(scope="module")
def files(extractor, crops, tmp_path_factory):
    """A reference of 900 crops (300 for precision and recall) and 400 samples."""
    folder = tmp_path_factory.mktemp("protocol")
    write_reference(
        folder / "reference.npz", crops.images[:900], extractor, name="six photographs", num_manifold_images=300
    )
    np.savez(folder / "samples.npz", arr_0=crops.images[2000:2400])
    return folder


def test_reference_statistics_are_those_of_all_images(files, extractor, crops):
    """The manifold's images are a spread of them; ADM's evaluator reads the same keys."""
    features = extract(extractor, crops.images[:900])
    content = np.load(files / "reference.npz")
    assert set(content) == {"arr_0", "mu", "sigma", "mu_s", "sigma_s", "metadata"}
    for array, mean, covariance in ((features.pool, "mu", "sigma"), (features.spatial, "mu_s", "sigma_s")):
        array = array.astype(np.float64)
        np.testing.assert_allclose(content[mean], array.mean(axis=0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(content[covariance], np.cov(array, rowvar=False), rtol=1e-9, atol=1e-12)
    assert np.array_equal(content["arr_0"], crops.images[:900:3])
    assert load_reference(files / "reference.npz").pool.num_samples == 900


def test_metrics_are_those_of_the_parts(files, extractor, crops):
    """FID and sFID against the stored statistics, precision and recall against the stored images."""
    settings = {"num_samples": 400, "k": 5, "is_chunk_size": 150}
    metrics = evaluate(files / "samples.npz", files / "reference.npz", extractor, **settings)
    everything = extract(extractor, crops.images[:900])
    real, sample = extract(extractor, crops.images[:900:3]), extract(extractor, crops.images[2000:2400])
    assert metrics["fid"] == pytest.approx(frechet_distance(everything.pool, sample.pool), rel=1e-4)
    assert metrics["sfid"] == pytest.approx(frechet_distance(everything.spatial, sample.spatial), rel=1e-4)
    assert metrics["inception_score"] == pytest.approx(inception_score(sample.probabilities, 150), rel=1e-5)
    assert (metrics["precision"], metrics["recall"]) == pytest.approx(precision_recall(real.pool, sample.pool, 5))
    assert metrics["patch_grid"] is None, "nobody knows the patch of these samples"


def test_samples_are_compared_with_the_reference_at_the_grid_of_their_patches(files, extractor, crops):
    """The grid would be looked for in the samples alone, or in the order of the axes of other images."""
    metrics = evaluate(files / "samples.npz", files / "reference.npz", extractor, num_samples=400, patch_size=8)
    assert metrics["patch_grid"] == patch_grid(crops.images[2000:2400], crops.images[:900:3], 8)


def test_metrics_say_what_they_were_obtained_with(files, extractor):
    """Evaluator, counts, checksums, settings and versions; and JSON takes it all."""
    metrics = evaluate(files / "samples.npz", files / "reference.npz", extractor, num_samples=400)
    assert metrics == json.loads(json.dumps(metrics, allow_nan=False))
    assert (metrics["num_samples"], metrics["protocol_num_samples"]) == (400, 50_000)
    assert metrics["feature_extractor"] == "photo network"
    assert metrics["reference"] == "six photographs"
    assert metrics["full_protocol"] is False
    assert any("photo network" in text for text in metrics["deviations"])
    assert any("400 samples" in text for text in metrics["deviations"])
    for name in ("samples", "reference"):
        expected = hashlib.sha256((files / f"{name}.npz").read_bytes()).hexdigest()
        assert metrics["sha256"][name] == expected
    assert metrics["sha256"]["extractor"] == extractor.sha256
    assert (metrics["settings"]["k"], metrics["settings"]["is_chunk_size"]) == (3, 5000)
    assert (metrics["settings"]["reference_images"], metrics["settings"]["reference_statistics_images"]) == (300, 900)
    assert metrics["device"]
    assert {"torch", "torch-fidelity"} <= set(metrics["versions"]["packages"])


@pytest.mark.slow
def test_full_protocol_takes_every_condition(files, extractor, monkeypatch):
    """50,000 samples, verified Inception, the suite's settings and a named reference; each alone is not enough."""
    monkeypatch.setattr(protocol, "PROTOCOL_NUM_SAMPLES", 400)
    monkeypatch.setattr(protocol, "MANIFOLD_IMAGES", 300)
    checksum = hashlib.sha256((files / "reference.npz").read_bytes()).hexdigest()
    monkeypatch.setitem(protocol.ADM_REFERENCES, "VIRTUAL_imagenet256_labeled.npz", checksum)
    verified = dataclasses.replace(extractor, verified=True)

    def deviations(extractor=verified, **settings):
        metrics = evaluate(
            files / "samples.npz", files / "reference.npz", extractor, **{"num_samples": 400, **settings}
        )
        assert metrics["full_protocol"] is (metrics["deviations"] == [])
        return metrics["deviations"]

    assert deviations() == []
    assert len(deviations(extractor)) == 1
    assert len(deviations(k=5)) == 1
    assert len(deviations(is_chunk_size=100)) == 1
    monkeypatch.setattr(protocol, "MANIFOLD_IMAGES", 10_000)
    assert len(deviations()) == 1
    monkeypatch.setattr(protocol, "PROTOCOL_NUM_SAMPLES", 50_000)
    assert len(deviations()) == 2
    monkeypatch.setitem(protocol.ADM_REFERENCES, "VIRTUAL_imagenet256_labeled.npz", "0" * 64)
    assert len(deviations()) == 3


def test_a_reference_of_unknown_origin_is_flagged(files, extractor, crops, tmp_path):
    """Images without statistics, a name or a checksum give figures, but say so; so does an imitation of ADM's."""
    np.savez(tmp_path / "someone.npz", arr_0=crops.images[:100])
    metrics = evaluate(files / "samples.npz", tmp_path / "someone.npz", extractor, num_samples=400)
    assert metrics["reference"] == "someone.npz"
    assert any("unknown origin" in text for text in metrics["deviations"])
    assert any("statistics of 100 images" in text for text in metrics["deviations"])
    features = extract(extractor, crops.images[:100])
    sample = extract(extractor, crops.images[2000:2400])
    expected = frechet_distance(Statistics.from_features(features.pool), sample.pool)
    assert metrics["fid"] == pytest.approx(expected, rel=1e-6)

    given = evaluate(
        files / "samples.npz", tmp_path / "someone.npz", extractor, num_samples=400, reference_name="a friend's"
    )
    assert given["reference"] == "a friend's"
    assert "the reference 'a friend's' instead of a file of the ADM release" in given["deviations"]


def test_references_of_the_adm_release_are_known_by_name_and_checksum(files, extractor, crops, tmp_path, monkeypatch):
    """A copy under another name is the same reference; another file under its name is not."""
    name = "VIRTUAL_imagenet256_labeled.npz"
    content = {key: array for key, array in np.load(files / "reference.npz").items() if key != "metadata"}
    np.savez(tmp_path / "copy.npz", **content)
    np.savez(tmp_path / name, **{**content, "arr_0": crops.images[:50]})
    monkeypatch.setitem(protocol.ADM_REFERENCES, name, hashlib.sha256((tmp_path / "copy.npz").read_bytes()).hexdigest())
    settings = {"num_samples": 400, "reference_name": "copy.npz"}  # as params.yaml names the file
    copy = evaluate(files / "samples.npz", tmp_path / "copy.npz", extractor, **settings)
    assert copy["reference"] == name
    assert not any("checksum" in text or "unknown origin" in text for text in copy["deviations"])
    other = evaluate(files / "samples.npz", tmp_path / name, extractor, num_samples=400)
    assert any("without the checksum of the ADM release's" in text for text in other["deviations"])


@pytest.mark.slow
def test_a_checksum_that_is_not_known_is_flagged_until_somebody_vouches_for_it(files, extractor):
    """The checksum of the 512 file is not known here: any file of that name would pass for it."""
    checksum = hashlib.sha256((files / "reference.npz").read_bytes()).hexdigest()

    def flags(**settings):
        metrics = evaluate(
            files / "samples.npz",
            files / "reference.npz",
            extractor,
            num_samples=400,
            reference_name="VIRTUAL_imagenet512.npz",
            **settings,
        )
        return [text for text in metrics["deviations"] if "512" in text]

    assert len(flags()) == 1 and checksum in flags()[0]
    assert len(flags(reference_sha256="0" * 64)) == 1
    assert flags(reference_sha256=checksum) == []


def test_another_number_of_samples_is_refused(files, extractor):
    """FID of 1000 samples is far above that of 50,000."""
    with pytest.raises(ValueError, match="expected 50000 samples, found 400"):
        evaluate(files / "samples.npz", files / "reference.npz", extractor)
    with pytest.raises(ValueError, match="expected 300 samples, found 400"):
        evaluate(files / "samples.npz", files / "reference.npz", extractor, num_samples=300)


def test_another_resolution_is_refused(files, extractor, tmp_path):
    """Inception would resize both and give a number."""
    np.savez(tmp_path / "large.npz", arr_0=np.zeros((400, 64, 64, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"differ in resolution: 64 x 64 in .*large.npz, 32 x 32 in"):
        evaluate(tmp_path / "large.npz", files / "reference.npz", extractor, num_samples=400)


def test_a_reference_of_another_extractor_is_refused(files, extractor, crops, tmp_path):
    """Statistics of one network against features of another are a number without meaning."""
    other = dataclasses.replace(extractor, sha256="1" * 64)
    with pytest.raises(
        ValueError, match=r"computed with photo network \(00000000\), not with photo network \(11111111\)"
    ):
        evaluate(files / "samples.npz", files / "reference.npz", other, num_samples=400)
    np.savez(
        tmp_path / "virtual.npz",
        arr_0=crops.images[:10],
        mu=np.zeros(2048),
        sigma=np.eye(2048),
        mu_s=np.zeros(8),
        sigma_s=np.eye(8),
    )
    with pytest.raises(ValueError, match="dimension 2048, but photo network gives 64"):
        evaluate(files / "samples.npz", tmp_path / "virtual.npz", extractor, num_samples=400)


def test_what_cannot_be_measured_is_refused_before_features_are(files, extractor, crops, tmp_path, monkeypatch):
    """Hours of Inception would be spent on samples that are then refused."""

    def extract(_extractor, images, *_arguments, **_options):
        assert len(images) == 1  # to see how many features the network gives
        return real_extract(extractor, images)

    real_extract = protocol.extract
    monkeypatch.setattr(protocol, "extract", extract)
    statistics = {"mu": np.zeros(2048), "sigma": np.eye(2048), "mu_s": np.zeros(8), "sigma_s": np.eye(8)}
    np.savez(tmp_path / "virtual.npz", arr_0=crops.images[:10], **statistics)
    with pytest.raises(ValueError, match="dimension 2048"):
        evaluate(files / "samples.npz", tmp_path / "virtual.npz", extractor, num_samples=400)
    np.savez(tmp_path / "few.npz", arr_0=crops.images[:3])
    with pytest.raises(ValueError, match=r"reference .*few\.npz has 3 images; k = 3 neighbours take at least 4"):
        evaluate(files / "samples.npz", tmp_path / "few.npz", extractor, num_samples=400)
    with pytest.raises(ValueError, match=r"sample .*few\.npz has 3 images; k = 3"):
        evaluate(tmp_path / "few.npz", files / "reference.npz", extractor, num_samples=3)


def test_a_broken_network_gives_no_metrics(files, extractor, network):
    """NaN is an error, never a figure."""

    class Broken(type(network)):
        def features(self, images):
            pool, spatial, logits = super().features(images)
            return pool * float("nan"), spatial, logits

    broken = Broken(32, 6)
    with pytest.raises(ValueError, match=r"(400 of 400|300 of 300) images have NaN"):
        evaluate(
            files / "samples.npz",
            files / "reference.npz",
            dataclasses.replace(extractor, network=broken),
            num_samples=400,
        )


def test_write_reference_refuses_other_images(extractor, crops, tmp_path):
    """And leaves no file."""
    with pytest.raises(ValueError, match="expected 32 x 32 pixels"):
        write_reference(tmp_path / "r.npz", np.zeros((5, 64, 64, 3), dtype=np.uint8), extractor, name="x")
    with pytest.raises(ValueError, match="manifold_images: expected uint8"):
        write_reference(
            tmp_path / "r.npz",
            crops.images[:9],
            extractor,
            name="x",
            manifold_images=crops.images[:4].astype(np.float32),
        )
    assert not list(tmp_path.iterdir())
