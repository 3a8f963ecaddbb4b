"""Representation alignment, with a stand-in for the encoder and, marked slow, with timm's own."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dip.diffusion.alignment import PatchEncoder, RepresentationAlignment, load_encoder, negative_cosine

NAME = "vit_base_patch14_dinov2.lvd142m"
SETTINGS = SimpleNamespace(weight=0.5, block=8, encoder=NAME, encoder_path=None)


class StandIn(nn.Module):
    """Quacks like a timm transformer: a class token, then the mean colours of 4 x 4 patches, widened to 5."""

    num_prefix_tokens = 1
    num_features = 5
    patch_embed = SimpleNamespace(grid_size=(4, 4))

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Linear(3, 5)
        self.seen: list[torch.Tensor] = []

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        colours = nn.functional.adaptive_avg_pool2d(images, 4).flatten(2).transpose(1, 2)  # (B, 16, 3)
        tokens = self.widen(colours)
        return torch.cat([torch.full_like(tokens[:, :1], 100.0), tokens], dim=1)


def align(encoder: PatchEncoder, grid: int = 4) -> RepresentationAlignment:
    """The alignment of tokens of 6 channels with the stand-in."""
    return RepresentationAlignment(SETTINGS, hidden_size=6, grid=grid, encoder=encoder)


@pytest.fixture
def encoder() -> PatchEncoder:
    torch.manual_seed(0)
    return PatchEncoder(StandIn(), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), image_size=28)


def test_negative_cosine_is_minus_one_for_equal_directions() -> None:
    """Wrong: the loss would push features apart, or depend on their lengths."""
    a, b = torch.randn(2, 3, 4, 5, dtype=torch.float64).unbind()
    assert negative_cosine(a, 7 * a).item() == pytest.approx(-1)
    assert negative_cosine(a, -a).item() == pytest.approx(1)
    expected = -((a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1)).mean()
    torch.testing.assert_close(negative_cosine(a, b), expected)


def test_encoder_sees_resized_images_normalised_as_in_its_training(encoder: PatchEncoder) -> None:
    """Wrong: the encoder would see images in [-1, 1] or of another size than it knows."""
    features = encoder(torch.full((2, 3, 64, 64), 0.6))
    seen = encoder.vit.seen[0]
    assert seen.shape == (2, 3, 28, 28)
    expected = (0.8 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.3, 0.4])  # 0.6 of [-1, 1] is 0.8 of [0, 1]
    torch.testing.assert_close(seen[1, :, 10, 10], expected)
    assert features.shape == (2, 16, 5)
    assert features.dtype == torch.float32
    assert features.max() < 50, "the class token is not a patch"


def test_images_are_resized_for_the_encoder_as_pillow_does(encoder: PatchEncoder) -> None:
    """Wrong: fine texture would alias into features of what is not in the image."""
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    encoder(images)
    channels = [Image.fromarray(channel.numpy()) for channel in (images[0] + 1) / 2]
    resized = [torch.from_numpy(np.array(channel.resize((28, 28), Image.Resampling.BICUBIC))) for channel in channels]
    seen = encoder.vit.seen[0][0] * encoder.std[0] + encoder.mean[0]
    torch.testing.assert_close(seen, torch.stack(resized), rtol=1e-4, atol=1e-4)


def test_features_are_in_the_order_of_the_patches(encoder: PatchEncoder) -> None:
    """Wrong: tokens would be aligned with the features of other patches."""
    images = -torch.ones(1, 3, 64, 64)
    images[..., :16, 48:] = 1  # upper right: the fourth patch
    features = encoder(images)[0]
    distance = (features - features[8]).norm(dim=-1)
    assert distance.argmax() == 3


def test_only_the_projector_is_trained(encoder: PatchEncoder) -> None:
    """Wrong: the encoder would drift towards the model, or cost memory for gradients."""
    alignment = align(encoder).train()
    tokens = torch.randn(2, 16, 6, requires_grad=True)
    loss = alignment(tokens, torch.rand(2, 3, 64, 64))
    loss.backward()
    assert -1 <= loss.item() <= 1
    assert tokens.grad is not None and tokens.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in alignment.projector.parameters())
    assert all(p.grad is None and not p.requires_grad for p in encoder.parameters())
    assert not encoder.training and not encoder.vit.training
    assert alignment.training


def test_projector_has_three_layers(encoder: PatchEncoder) -> None:
    """Wrong: another projector than DDT's D -> D -> D -> E."""
    projector = align(encoder).projector
    shapes = [tuple(layer.weight.shape) for layer in projector if isinstance(layer, nn.Linear)]
    assert shapes == [(6, 6), (6, 6), (5, 6)]
    assert [type(layer) for layer in projector[1::2]] == [nn.SiLU, nn.SiLU]


def test_training_the_projector_aligns(encoder: PatchEncoder) -> None:
    """Wrong: the sign of the loss, or a detached gradient."""
    torch.manual_seed(0)
    alignment = align(encoder)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    tokens = torch.randn(2, 16, 6)
    optimizer = torch.optim.AdamW(alignment.projector.parameters(), lr=1e-2)
    before = alignment(tokens, images)
    for _ in range(30):
        optimizer.zero_grad()
        loss = alignment(tokens, images)
        loss.backward()
        optimizer.step()
    assert loss < before - 0.1


def test_checkpoint_holds_the_projector_only(encoder: PatchEncoder) -> None:
    """Wrong: every checkpoint would carry the encoder, or the projector would start anew after a resume."""
    first, second = align(encoder), align(encoder)
    state = first.trainable_state()
    assert {name.split(".")[0] for name in state} == {"projector"}
    second.load_state_dict(state, strict=False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_other_number_of_patches_is_refused(encoder: PatchEncoder) -> None:
    """Wrong: patches would be compared with patches elsewhere in the image."""
    with pytest.raises(ValueError, match=r"the model has 8 x 8 patches and the encoder 4 x 4"):
        align(encoder, grid=8)


def test_missing_weights_say_how_to_bring_them(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a node without internet would hang on a download, or the user would not know what to fetch."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(FileNotFoundError, match=f"hf download timm/{NAME} model.safetensors") as error:
        load_encoder(NAME)
    assert "training.alignment.encoder_path" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent\.safetensors"):
        load_encoder(NAME, tmp_path / "absent.safetensors")


@pytest.mark.parametrize("name", ["dino", "vit_base_patch14_dinov2.other"])
def test_unknown_encoder_is_named(name: str) -> None:
    """Wrong: timm's own error, which does not name the key of params.yaml."""
    with pytest.raises(ValueError, match=rf"'{name}' \(training.alignment.encoder\)"):
        load_encoder(name)


@pytest.mark.slow
def test_encoder_of_timm_is_loaded_from_a_file(tmp_path) -> None:
    """Wrong: published weights (for 518 x 518 pixels) would not load, or others would pass unnoticed."""
    import timm
    from safetensors.torch import save_file

    published = timm.create_model(NAME, pretrained=False)  # as on the hub: 37 x 37 positions
    path = tmp_path / "model.safetensors"
    save_file(published.state_dict(), path)
    settings = SimpleNamespace(**(vars(SETTINGS) | {"encoder_path": str(path)}))
    alignment = RepresentationAlignment(settings, hidden_size=8, grid=16)
    encoder = alignment.encoder
    assert encoder.grid_size == (16, 16) and encoder.width == 768
    assert torch.equal(encoder.vit.blocks[3].attn.qkv.weight, published.blocks[3].attn.qkv.weight)
    assert encoder.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    loss = alignment(torch.randn(1, 256, 8), torch.rand(1, 3, 256, 256) * 2 - 1)
    assert -1 <= loss.item() <= 1

    with pytest.raises(ValueError, match="the model has 32 x 32 patches and the encoder 16 x 16"):
        RepresentationAlignment(settings, hidden_size=8, grid=32)
    save_file({"other": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=f"does not hold the weights of {NAME}"):
        load_encoder(NAME, path)
