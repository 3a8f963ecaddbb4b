"""If these fail, the features behind every metric are not those the protocol names."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from dip.evaluation.features import extract, iterate_features, open_extractor
from dip.evaluation.photo_network import save_photo_network


@pytest.fixture(scope="module")
def inception():
    """torch-fidelity's network; not imported with this file, which takes seconds."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    return FeatureExtractorInceptionV3


@pytest.fixture(scope="module")
def inception_file(inception, tmp_path_factory):
    """Random weights in a file; batch norm varies, so that features before and after it differ."""

    class RandomInception(inception):
        """The network with the weights it is built with: nothing is downloaded or loaded."""

        def __init__(self, features_list):
            empty = io.BytesIO()
            torch.save({}, empty)
            empty.seek(0)
            super().__init__("random", features_list, empty)

        def load_state_dict(self, *args, **kwargs):
            """Keep the initial weights."""

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RandomInception(["2048"])
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                torch.nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.bias.uniform_(-0.3, 0.3)
                module.running_mean.uniform_(-0.2, 0.2)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(network.state_dict(), path)
    return path


def random_images(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 256, 512])
def test_inception_features_equal_a_network_hooked_by_hand(inception, inception_file, size):
    """Pool, unbiased logits, and the spatial features after batch norm and ReLU, 7 channels, channels last."""
    images = random_images(3, size)
    features = extract(open_extractor("inception", inception_file), images, batch_size=2)

    network = inception("by hand", ["2048", "logits_unbiased"], str(inception_file))
    normalised = []
    network.Mixed_6d.branch1x1.bn.register_forward_hook(lambda m, i, output: normalised.append(output.clone()))
    with torch.no_grad():
        pool, logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    maps = np.maximum(normalised[0].numpy(), 0)  # (3, 192, 17, 17)
    spatial = np.stack([maps[:, channel] for channel in range(7)], axis=-1).reshape(3, 17 * 17 * 7)

    assert (features.pool.shape, features.spatial.shape) == ((3, 2048), (3, 2023))
    assert features.probabilities.shape == (3, 1008)
    for ours, expected in (
        (features.pool, pool.numpy()),
        (features.spatial, spatial),
        (features.probabilities, torch.softmax(logits, dim=1).numpy()),
    ):
        assert ours.dtype == np.float32
        assert np.ptp(expected) > 0
        assert np.linalg.norm(ours - expected) <= 1e-6 * np.linalg.norm(expected)


@pytest.mark.slow
def test_inception_weights_of_unknown_origin_are_named_so(inception_file):
    """A table must not show them as ADM's network."""
    extractor = open_extractor("inception", inception_file)
    assert not extractor.verified
    assert extractor.sha256[:8] in extractor.name
    assert extractor.image_size is None


def test_missing_inception_weights_are_not_downloaded(tmp_path, monkeypatch):
    """Compute nodes have no internet; the message says what to fetch and where to put it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("tried to download"))
    with pytest.raises(FileNotFoundError, match=r"`dip fetch` on a machine with internet .* or save https://.*pth as"):
        open_extractor("inception")
    with pytest.raises(FileNotFoundError, match="no Inception weights at"):
        open_extractor("inception", tmp_path / "nowhere.pth")


@pytest.mark.slow
def test_inception_weights_in_the_cache_are_found(inception_file, tmp_path, monkeypatch):
    """torch-fidelity's own cache serves too."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    (cache / "weights-inception-2015-12-05-6726825d.pth").symlink_to(inception_file)
    assert open_extractor("inception").name.startswith("InceptionV3")


class Bomb:
    """A pickle that would run code."""

    def __reduce__(self):
        return pytest.fail, ("code of a weights file was run",)


@pytest.mark.slow
def test_refuses_files_that_are_not_inception(tmp_path):
    """Another checkpoint, texts, of which torch reads each another way, or a pickle that runs code."""
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save({"conv.weight": Bomb()}, tmp_path / "bomb.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "greeting.pth").write_text("hello world")
    (tmp_path / "empty.pth").touch()
    for name in ("other", "bomb", "list", "text", "greeting", "empty"):
        with pytest.raises(ValueError, match="does not hold the weights of torch-fidelity's InceptionV3") as refused:
            open_extractor("inception", tmp_path / f"{name}.pth")
        assert "\n" not in str(refused.value) and "weights_only" not in str(refused.value)  # advice to trust the file


def test_open_photo_extractor(network, tmp_path):
    """By name and file; its name carries what it was trained on."""
    save_photo_network(network, tmp_path / "photo.safetensors")
    extractor = open_extractor("photo", tmp_path / "photo.safetensors")
    assert extractor.name == "photo network (6 classes, 32 px)"
    assert (extractor.verified, extractor.image_size, len(extractor.sha256)) == (False, 32, 64)
    with pytest.raises(ValueError, match="give `weights`"):
        open_extractor("photo")
    with pytest.raises(ValueError, match="expected 'inception' or 'photo'"):
        open_extractor("clip")


def test_batches_do_not_change_features(extractor, crops):
    """Batch size, arrays or iterables: the same features in the same order."""
    images = crops.images[:50]
    whole = extract(extractor, images, batch_size=50)
    for other in (
        extract(extractor, images, batch_size=7),
        extract(extractor, iter([images[:30], images[30:31], images[31:]]), batch_size=16),
    ):
        np.testing.assert_allclose(other.pool, whole.pool, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(other.spatial, whole.spatial, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(other.probabilities, whole.probabilities, rtol=1e-4, atol=1e-6)
    assert len(whole) == 50
    np.testing.assert_allclose(whole.probabilities.sum(axis=1), 1, atol=1e-5)
    assert sum(len(batch) for batch in iterate_features(extractor, images, batch_size=16)) == 50


def test_extraction_leaves_the_settings_of_torch_alone(extractor, crops):
    """A training in the same process keeps its TF32 and cuDNN choices."""
    torch.set_float32_matmul_precision("high")
    try:
        extract(extractor, crops.images[:4])
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32, 3), dtype=np.float32), "expected uint8"),
        (np.zeros((2, 3, 32, 32), dtype=np.uint8), "transpose"),
        (np.zeros((2, 32, 32), dtype=np.uint8), "colour images"),
        (np.zeros((2, 64, 64, 3), dtype=np.uint8), "expected 32 x 32 pixels, got 64 x 64"),
        (np.zeros((0, 32, 32, 3), dtype=np.uint8), "no images"),
        ([], "no images"),
    ],
)
def test_refuses_images_of_another_kind(extractor, images, message):
    """Each mistake is named with what was expected."""
    with pytest.raises(ValueError, match=message):
        extract(extractor, images)


def test_refuses_a_batch_size_below_one(extractor, crops):
    """Not an endless loop, nor no features."""
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        extract(extractor, crops.images, batch_size=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_features_equal_those_of_the_cpu(inception_file):
    """With TF32 left on they would differ by 1e-3."""
    images = random_images(4, 64)
    extractor = open_extractor("inception", inception_file)
    on_cpu, on_gpu = extract(extractor, images), extract(extractor, images, device="cuda")
    for name in ("pool", "spatial", "probabilities"):
        difference = np.linalg.norm(getattr(on_cpu, name) - getattr(on_gpu, name))
        assert difference <= 1e-4 * np.linalg.norm(getattr(on_cpu, name)), name
