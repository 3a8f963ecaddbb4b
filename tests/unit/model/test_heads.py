"""Patch Detailer Heads: shapes, independence of patches, starting weights, and their formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dip.model import HEADS, PatchDetailerHead, UNetHead, patchify
from dip.model.head import initialize_head
from dip.model.head_coordinate import GeneratedBlock, dct_features

GRID = (2, 2)


def make(small, name: str, *, grid_size=GRID, **settings) -> PatchDetailerHead:
    """A head of the small model with he_nonzero weights."""
    model = small(name, **settings)
    head = HEADS[name].from_params(model.head, model, grid_size)
    initialize_head(head, "he_nonzero")
    return head


def inputs(patch_size: int = 4, num_patches: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Patches, tokens and timestep embeddings of two images."""
    generator = torch.Generator().manual_seed(0)
    sizes = (2, num_patches, 3 * patch_size**2), (2, num_patches, 16), (2, 16)
    patches, tokens, t_emb = (torch.randn(size, generator=generator) for size in sizes)
    return patches, tokens, t_emb


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("patch_size", [4, 8, 12])
def test_a_head_returns_a_patch_for_every_patch(small, name: str, patch_size: int) -> None:
    """Wrong: the head would work for one patch size only (Figure 10b varies it)."""
    patches, tokens, t_emb = inputs(patch_size)
    output = make(small, name, patch_size=patch_size)(patches, tokens, t_emb)
    assert output.shape == patches.shape
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("name", HEADS)
def test_patches_are_handled_independently(small, name: str) -> None:
    """Wrong: "independently and in parallel on each patch" (section 3.3) would not hold."""
    head = make(small, name)
    patches, tokens, t_emb = (x[:1] for x in inputs())
    by_patch = torch.autograd.functional.jacobian(lambda p: head(p, tokens, t_emb)[0].sum(-1), patches)[:, 0]
    by_token = torch.autograd.functional.jacobian(lambda s: head(patches, s, t_emb)[0].sum(-1), tokens)[:, 0]
    for jacobian in (by_patch, by_token):  # (output patch, input patch or token, its numbers)
        reached = jacobian.ne(0).any(dim=-1)
        assert torch.equal(reached, torch.eye(4, dtype=torch.bool))


@pytest.mark.parametrize("name", HEADS)
def test_only_the_coordinate_head_sees_the_time(small, name: str) -> None:
    """Wrong: a head would have an input that the paper does not give it, or PixNerd's would lack its own."""
    head = make(small, name)
    patches, tokens, t_emb = inputs()
    same = torch.equal(head(patches, tokens, t_emb), head(patches, tokens, t_emb + 1))
    assert same == (name != "coordinate")


@pytest.mark.parametrize("name", HEADS)
def test_initialisation_is_a_named_choice(small, name: str) -> None:
    """Wrong: "zero" would not start at zero, "he_nonzero" would, or a typo would pass."""
    torch.manual_seed(0)
    head = make(small, name)
    weights = [m for m in head.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert all(m.weight.any() and (m.bias is None or not m.bias.any()) for m in weights)
    widest = max(weights, key=lambda m: m.weight.numel())
    fan_in = widest.weight[0].numel()
    assert widest.weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.15)
    assert head(*inputs()).std() > 0.01

    initialize_head(head, "zero")
    assert not head(*inputs()).any()
    with pytest.raises(ValueError, match=r"unknown head initialisation 'ones', expected one of he_nonzero, zero"):
        initialize_head(head, "ones")


@pytest.mark.parametrize(
    ("name", "settings", "shapes"),
    [
        (
            "attention",
            {"depth": 3, "width": 24, "num_heads": 3, "context_width": 5},
            {"embed.weight": (24, 3 + 5), "rope.cos": (16, 1, 4)},
        ),
        (
            "coordinate",
            {"depth": 3, "width": 6, "expansion": 4, "num_frequencies": 5},
            {"embed.weight": (6, 3 + 25), "blocks.2.generator.bias": (2 * 6 * 24,)},
        ),
    ],
)
def test_a_head_has_the_sizes_of_its_settings(small, name: str, settings: dict, shapes: dict) -> None:
    """Wrong: the head would have its default sizes, whatever params.yaml says."""
    head = make(small, name, head_settings=settings)
    found = {**dict(head.named_parameters()), **dict(head.named_buffers())}
    assert {key: tuple(found[key].shape) for key in shapes} == shapes
    assert len(head.blocks) == 3


def test_unet_has_the_channels_of_table_4() -> None:
    """Wrong: another U-Net than the paper's (Table 4 and section 4.1)."""
    head = UNetHead(16, 1152)

    def channels(convs) -> list[tuple[int, int]]:
        return [(conv.in_channels, conv.out_channels) for conv in convs]

    assert channels(head.down) == [(3, 64), (64, 128), (128, 256), (256, 512)]
    assert channels([head.bottleneck]) == [(512 + 1152, 512)]
    # Twice the width before it: the upsampled features and the skip.
    assert channels(head.up) == [(1024, 256), (512, 128), (256, 64), (128, 64)]
    assert channels([head.output]) == [(64, 3)]
    assert all(conv.kernel_size == (3, 3) for conv in (*head.down, *head.up))
    assert head.bottleneck.kernel_size == head.output.kernel_size == (1, 1)


def test_unet_is_the_formula() -> None:
    """Wrong: skips taken after the pooling, or another pooling or upsampling than average and nearest."""
    head = UNetHead(4, 16, depth=2, width=4)
    pixels, context = torch.randn(3, 3, 4, 4), torch.randn(3, 16, 1, 1)

    def conv(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        return F.silu(F.conv2d(x, layer.weight, layer.bias, padding=layer.padding))

    def halve(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-2, (-1, 2)).unflatten(-1, (-1, 2)).mean(dim=(-3, -1))

    def double(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)

    large = conv(head.down[0], pixels)  # 4 x 4
    middle = conv(head.down[1], halve(large))  # 2 x 2
    bottom = conv(head.bottleneck, torch.cat([halve(middle), context], dim=1))  # 1 x 1
    middle = conv(head.up[0], torch.cat([double(bottom), middle], dim=1))
    large = conv(head.up[1], torch.cat([double(middle), large], dim=1))
    torch.testing.assert_close(head.refine(pixels, context), head.output(large))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [2, 3])
def test_unet_depth_and_width_are_free(depth: int, width: int) -> None:
    """Wrong: Figure 10a (depth and width of the head) could not be run."""
    head = UNetHead(16, 16, depth=depth, width=width)
    patches, tokens, t_emb = inputs(16)
    assert head(patches, tokens, t_emb).shape == patches.shape
    assert [conv.out_channels for conv in head.down] == [width * 2**stage for stage in range(depth)]
    assert head.up[-1].out_channels == width


def test_unet_expands_the_token_over_what_is_left_of_the_patch() -> None:
    """Wrong: with P = 32 (DiP-XL/32) the four stages end at 2 x 2 and the token would not fit."""
    head = UNetHead(32, 16, width=2)
    seen = []
    head.bottleneck.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    patches, tokens, t_emb = inputs(32)
    head(patches, tokens, t_emb)
    context = seen[0][:, -16:]  # (B N, D, 2, 2)
    torch.testing.assert_close(context, tokens.reshape(8, 16, 1, 1).expand(8, 16, 2, 2), rtol=0, atol=0)


def test_unet_that_is_too_deep_for_its_patch_is_refused() -> None:
    """Wrong: a pooled patch of no pixels, or skips that do not fit."""
    with pytest.raises(ValueError, match=r"depth 4 .* 2\^4 = 16, got patch size 8"):
        UNetHead(8, 16, depth=4)
    with pytest.raises(ValueError, match=r"depth 3 .* 2\^3 = 8, got patch size 12"):
        UNetHead(12, 16, depth=3)


def test_unet_on_whole_images_mixes_patches_with_the_same_parameters(small) -> None:
    """Wrong: Figure 11's comparison would change more than the input of the head."""
    alone, whole = make(small, "unet"), make(small, "unet", head_input="image")
    whole.load_state_dict(alone.state_dict())
    patches, tokens, t_emb = inputs()
    moved = patches.clone()
    moved[:, 0] += 1
    change = (whole(moved, tokens, t_emb) - whole(patches, tokens, t_emb)).abs().amax(dim=(0, 2))
    assert (change > 0).all()
    assert not torch.allclose(whole(patches, tokens, t_emb), alone(patches, tokens, t_emb), atol=1e-3)


@pytest.mark.parametrize("patch_size", [4, 8])
def test_unet_on_an_image_of_one_patch_is_the_unet_on_that_patch(small, patch_size: int) -> None:
    """Wrong: tokens or pixels laid out differently in the two kinds of input."""
    alone = make(small, "unet", patch_size=patch_size)
    whole = make(small, "unet", patch_size=patch_size, head_input="image", grid_size=(1, 1))
    whole.load_state_dict(alone.state_dict())
    arguments = inputs(patch_size, num_patches=1)
    torch.testing.assert_close(whole(*arguments), alone(*arguments))


def test_unet_on_whole_images_puts_every_token_at_its_patch(small) -> None:
    """Wrong: tokens transposed or shifted against the pixels they describe."""
    head = make(small, "unet", patch_size=8, head_input="image", grid_size=(2, 3))
    seen = []
    head.bottleneck.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    patches, tokens, t_emb = inputs(8, num_patches=6)
    head(patches, tokens, t_emb)
    context = seen[0][:, -16:]  # (B, D, 2 x 2, 3 x 2): two pixels per patch and axis are left
    expected = tokens.unflatten(1, (2, 3)).permute(0, 3, 1, 2)
    torch.testing.assert_close(context, expected.repeat_interleave(2, 2).repeat_interleave(2, 3), rtol=0, atol=0)


def test_mlp_is_the_formula(small) -> None:
    """Wrong: another order of token and patch, or another width than D + 3 P^2."""
    head = make(small, "mlp")
    patches, tokens, t_emb = inputs()
    x = torch.cat([tokens, patches], dim=-1)
    expected = head.output(F.silu(head.hidden(x)))
    torch.testing.assert_close(head(patches, tokens, t_emb), expected)
    assert head.hidden.weight.shape == (16 + 48, 16 + 48)


def test_attention_head_pairs_colours_with_their_own_context(small) -> None:
    """Wrong: a pixel would get the context of another pixel."""
    head = make(small, "attention")
    images = torch.randn(2, 3, 8, 8)
    _, tokens, t_emb = inputs()
    seen = []
    head.embed.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    head(patchify(images, 4), tokens, t_emb)
    pixels = seen[0].view(2, 2, 2, 4, 4, 3 + 4)  # image, patch row, patch column, row, column, channels
    torch.testing.assert_close(pixels[1, 1, 0, 2, 3, :3], images[1, :, 4 + 2, 3], rtol=0, atol=0)
    context = head.context(tokens).view(2, 2, 2, 4, 4, 4)
    torch.testing.assert_close(pixels[..., 3:], context, rtol=0, atol=0)


def test_attention_head_is_the_formula(small) -> None:
    """Wrong: a block would lose a branch or its residual, or pixels would come out in another order than they went in.

    That its attention is right is tested with the layers.
    """
    head = make(small, "attention")
    patches, tokens, t_emb = inputs()
    colours = patches.view(8, 3, 16).mT  # (B N, P^2, 3)
    x = head.embed(torch.cat([colours, head.context(tokens).view(8, 16, 4)], dim=-1))
    for block in head.blocks:
        middle = x + block.attn(block.norm1(x), head.rope)
        x = middle + block.mlp(block.norm2(middle))
    expected = head.output(head.norm(x)).mT.reshape(patches.shape)
    torch.testing.assert_close(head(patches, tokens, t_emb), expected)


def test_attention_head_follows_the_qk_norm_switch(small) -> None:
    """Wrong: a model without q/k normalisation would still have it in its head."""
    names = [name for name, _ in make(small, "attention", qk_norm=False).named_parameters()]
    assert not any("q_norm" in name or "k_norm" in name for name in names)


def test_dct_features_are_the_formula() -> None:
    """Wrong: axes swapped or other frequencies than PixNerd's."""
    features = dct_features(4, 3).view(4, 4, 3, 3)  # row, column, frequency of x, frequency of y
    for row in range(4):
        for column in range(4):
            for i, f in enumerate((0.0, 1.5, 3.0)):
                for j, g in enumerate((0.0, 1.5, 3.0)):
                    wave = math.cos(math.pi * column / 3 * f) * math.cos(math.pi * row / 3 * g)
                    assert features[row, column, i, j].item() == pytest.approx(wave / (1 + f * g), abs=1e-6)


def test_generated_block_makes_a_network_for_every_patch() -> None:
    """Wrong: patches would share weights, or the generated columns would not be of unit length."""
    block = GeneratedBlock(hidden_size=5, width=4, expansion=2).double()
    x, context = torch.randn(3, 6, 4).double(), torch.randn(3, 5).double()
    output = block(x, context)
    for i in range(3):
        numbers = block.generator(context[i])
        first, second = numbers[:32].view(4, 8), numbers[32:].view(8, 4)
        first, second = first / first.norm(dim=0), second / second.norm(dim=0)
        torch.testing.assert_close(output[i], x[i] + F.silu(block.norm(x[i]) @ first) @ second)


def test_coordinate_head_is_the_formula(small) -> None:
    """Wrong: the generated networks would not see the time, or a pixel would get the position of another."""
    head = make(small, "coordinate")
    patches, tokens, t_emb = inputs()
    context = F.silu(tokens + t_emb[:, None]).flatten(0, 1)
    colours = patches.view(8, 3, 16).mT  # (B N, P^2, 3)
    x = head.embed(torch.cat([colours, head.positions.expand(8, -1, -1)], dim=-1))
    for block in head.blocks:
        x = block(x, context)
    expected = head.output(head.norm(x)).mT.reshape(patches.shape)
    torch.testing.assert_close(head(patches, tokens, t_emb), expected)
