"""If these fail, the demo's figures do not rank models, cannot be repeated, or rest on the wrong network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter

from dip.evaluation import frechet_distance, inception_score
from dip.evaluation.features import extract
from dip.evaluation.photo_network import (
    PhotoNetwork,
    load_photo_network,
    save_photo_network,
    train_photo_network,
)


def as_tensor(images):
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2)


class TensorDataset(torch.utils.data.Dataset):
    """What torch-fidelity reads images from."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def distances(extractor, reference, images):
    features = extract(extractor, images)
    return (
        frechet_distance(reference.pool, features.pool),
        frechet_distance(reference.spatial, features.spatial),
    )


def blurred(images, sigma):
    smooth = gaussian_filter(images.astype(np.float64), (0, sigma, sigma, 0))
    return smooth.round().clip(0, 255).astype(np.uint8)


def noisy(images, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reference(extractor, crops):
    return extract(extractor, crops.images[:2000])


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "strengths"), [(blurred, (0.5, 1, 2)), (noisy, (4, 16, 64))])
def test_distances_rise_with_damage(extractor, reference, crops, damage, strengths):
    """An evaluator that takes worse images for better ones ranks nothing."""
    images = crops.images[2000:]
    steps = [distances(extractor, reference, images)]
    steps += [distances(extractor, reference, damage(images, strength)) for strength in strengths]
    fid, sfid = np.array(steps).T
    assert (np.diff(fid) > 0).all(), fid
    assert (np.diff(sfid) > 0).all(), sfid
    assert fid[-1] > 20 * fid[0], fid


@pytest.mark.slow
def test_agrees_with_torch_fidelity(network, extractor, crops, tmp_path):
    """torch-fidelity's own metrics on the same network: the distance and the score are ours."""
    import torch_fidelity  # here, because it takes seconds

    from dip.evaluation.extractors import PhotoFeatures

    save_photo_network(network, tmp_path / "photo.safetensors")
    torch_fidelity.register_feature_extractor("photo", PhotoFeatures)
    first, second = as_tensor(crops.images[:300]), as_tensor(noisy(crops.images[300:600], 16))
    theirs = torch_fidelity.calculate_metrics(
        input1=TensorDataset(second),
        input2=TensorDataset(first),
        feature_extractor="photo",
        feature_extractor_weights_path=str(tmp_path / "photo.safetensors"),
        isc=True,
        fid=True,
        isc_splits=1,
        samples_shuffle=False,
        cuda=False,
        cache=False,
        verbose=False,
    )
    real, sample = (extract(extractor, images.permute(0, 2, 3, 1).numpy()) for images in (first, second))
    assert frechet_distance(real.pool, sample.pool) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)
    ours = inception_score(sample.probabilities, chunk_size=300)
    assert ours == pytest.approx(theirs["inception_score_mean"], rel=1e-5)


@pytest.mark.slow
def test_halves_of_the_data_are_near(extractor, crops):
    """The floor of the measure has to lie far below what models reach (blur of half a pixel here)."""
    order = np.random.default_rng(0).permutation(3000)
    halves = [crops.images[order[:1500]], crops.images[order[1500:]]]
    first = extract(extractor, halves[0])
    floor = distances(extractor, first, halves[1])[0]
    assert 0 < floor < 0.3 * distances(extractor, first, blurred(halves[1], 0.5))[0]


def test_it_learns_the_classes(network, crops):
    """Features of a network that cannot tell the photographs apart say little of their content."""
    with torch.no_grad():
        logits = network(as_tensor(crops.images[2000:]))[2]
    assert (logits.argmax(dim=1).numpy() == crops.labels[2000:]).mean() > 0.85


def test_training_is_a_function_of_its_arguments(crops):
    """Same seed, same bits, whatever was drawn before; and the global generator is left alone."""
    state = torch.get_rng_state()
    settings = {"num_classes": 6, "num_steps": 3, "batch_size": 8}
    first = train_photo_network(crops.images[:50], crops.labels[:50], seed=1, **settings)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    second = train_photo_network(crops.images[:50], crops.labels[:50], seed=1, **settings)
    other = train_photo_network(crops.images[:50], crops.labels[:50], seed=2, **settings)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert not first.training
    assert not any(parameter.requires_grad for parameter in first.parameters())


@pytest.mark.parametrize("image_size", [32, 64, 100])
def test_shapes_at_every_size(image_size):
    """The spatial features keep their dimension, so 500 samples suffice at any resolution."""
    network = PhotoNetwork(image_size, 10)
    images = torch.randint(256, (3, 3, image_size, image_size), dtype=torch.uint8)
    pool, spatial, logits = network(images)
    assert (pool.shape, spatial.shape, logits.shape) == ((3, 64), (3, 256), (3, 10))
    assert {pool.dtype, spatial.dtype, logits.dtype} == {torch.float32}


def test_spatial_features_are_channels_last():
    """As ADM has them, so that both extractors read alike."""
    network = PhotoNetwork(32, 10)
    maps = []
    network.stem.register_forward_hook(lambda module, inputs, output: maps.append(output))
    spatial = network(torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8))[1]
    expected = np.transpose(maps[0][:, :4].detach().numpy(), (0, 2, 3, 1)).reshape(2, -1)
    np.testing.assert_allclose(spatial.detach().numpy(), expected, rtol=1e-6)


def test_save_and_load(network, crops, tmp_path):
    """The file alone has to bring back the same features, its classes and its settings."""
    path = tmp_path / "photo.safetensors"
    save_photo_network(network, path)
    loaded = load_photo_network(path)
    images = as_tensor(crops.images[:20])
    for before, after in zip(network(images), loaded(images), strict=True):
        assert torch.equal(before, after)
    assert loaded.settings == network.settings
    assert (loaded.image_size, loaded.num_classes, loaded.settings["num_steps"]) == (32, 6, 100)
    save_photo_network(loaded, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_loading_something_else_is_a_clear_error(network, tmp_path):
    """A model's checkpoint in the place of the feature network must not pass."""
    with pytest.raises(FileNotFoundError, match=r"no photo network at .* `dip features missing`"):
        load_photo_network(tmp_path / "missing.safetensors")
    (tmp_path / "text").write_text("not tensors")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_photo_network(tmp_path / "text")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="is not a photo network"):
        load_photo_network(tmp_path / "other")
    save_photo_network(network, tmp_path / "photo")
    content = (tmp_path / "photo").read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_photo_network(tmp_path / "cut")
    old = b'\\"num_classes\\": 6'
    for new in (b'\\"num_classes\\": 7', b'\\"num_klasses\\": 6', b'\\"num_classes\\": -'):
        (tmp_path / "edited").write_bytes(content.replace(old, new))
        with pytest.raises(ValueError, match=r"(?s)edited do not fit the network its metadata .*`dip features edited`"):
            load_photo_network(tmp_path / "edited")


def test_refuses_images_it_was_not_trained_for(network):
    """Features at another resolution would be numbers without meaning."""
    with pytest.raises(ValueError, match=r"shape \(3, 32, 32\), got torch.uint8 of shape \(3, 64, 64\)"):
        network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"got torch.float32"):
        network(torch.zeros(1, 3, 32, 32))


def test_refuses_a_training_set_that_is_none():
    """Mistaken arrays are named."""
    images, labels = np.zeros((8, 32, 32, 3), dtype=np.uint8), np.arange(8) % 3
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\), got 0 to 2"):
        train_photo_network(images, labels, num_classes=2)
    with pytest.raises(ValueError, match="one label for each of 8 images"):
        train_photo_network(images, labels[:5], num_classes=3)
    with pytest.raises(ValueError, match="expected uint8 images"):
        train_photo_network(images.astype(np.float32), labels, num_classes=3)
    with pytest.raises(ValueError, match="multiple of 4"):
        train_photo_network(images[:, :30, :30], labels, num_classes=3)
    with pytest.raises(ValueError, match="at least 2 classes"):
        train_photo_network(images, np.zeros(8, dtype=np.int64), num_classes=1)
