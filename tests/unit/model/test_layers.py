"""Layers against their formulas, written out in float64."""

from __future__ import annotations

import math

import pytest
import torch

from dip.model.layers import (
    Attention,
    LabelEmbedder,
    RMSNorm,
    RotaryEmbedding2D,
    SwiGLU,
    TimestepEmbedder,
    attend,
    modulate,
    rotary_angles,
    timestep_embedding,
)

DOUBLE = torch.float64


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """The module in float64 with normal weights, so that no term of a formula is hidden by a 0 or a 1."""
    module = module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def test_modulate_scales_around_one_then_shifts() -> None:
    """Wrong: a modulation of zero would not leave the tokens alone."""
    x, shift, scale = torch.randn(3, 2, 5, 4, dtype=DOUBLE).unbind()
    torch.testing.assert_close(modulate(x, shift[:, :1], scale[:, :1]), x + x * scale[:, :1] + shift[:, :1])


def test_rms_norm_is_the_formula() -> None:
    """Wrong: tokens would be centred, or scaled by another norm."""
    norm = randomized(RMSNorm(6))
    x = torch.randn(2, 3, 6, dtype=DOUBLE)
    expected = norm.weight * x / torch.sqrt((x**2).sum(-1, keepdim=True) / 6 + 1e-6)
    torch.testing.assert_close(norm(x), expected)


def test_rms_norm_in_bfloat16_accumulates_in_float32() -> None:
    """Wrong: the mean square of many channels would be lost to bfloat16's eight bits."""
    x = torch.randn(4, 1152).bfloat16()
    norm = RMSNorm(1152)
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x), norm(x.float()).bfloat16())


def test_timestep_embedding_is_the_formula() -> None:
    """Wrong: another period or order of the sinusoids than DDT's, whose weights would not carry over."""
    t = torch.tensor([0.0, 0.3, 1.0], dtype=DOUBLE)
    features = timestep_embedding(t, 8)
    for i, time in enumerate(t.tolist()):
        for k in range(4):
            angle = time * 10 ** (-k / 4)
            assert features[i, k].item() == pytest.approx(math.cos(angle), abs=1e-14)
            assert features[i, 4 + k].item() == pytest.approx(math.sin(angle), abs=1e-14)


def test_timestep_embedder_is_linear_silu_linear() -> None:
    """Wrong: the condition would be made by another network than DiT's."""
    embedder = randomized(TimestepEmbedder(5))
    t = torch.rand(3, dtype=DOUBLE)
    first, _, second = embedder.mlp
    hidden = timestep_embedding(t, 256) @ first.weight.T + first.bias
    expected = hidden / (1 + torch.exp(-hidden)) @ second.weight.T + second.bias
    torch.testing.assert_close(embedder(t), expected)


def test_times_in_half_precision_stay_distinct_in_a_half_precision_model() -> None:
    """Wrong: a model cast to bfloat16 would fail on its float32 times."""
    embedder = TimestepEmbedder(8).bfloat16()
    features = embedder(torch.tensor([0.25, 0.75]))
    assert features.dtype == torch.bfloat16
    assert not torch.equal(features[0], features[1])


def test_label_embedder_has_a_row_for_no_class() -> None:
    """Wrong: guidance would have no unconditional model, or labels would be shifted."""
    embedder = LabelEmbedder(num_classes=3, hidden_size=4)
    torch.testing.assert_close(embedder(torch.arange(4)), embedder.embedding_table.weight)


def test_rotary_angles_follow_the_grid() -> None:
    """Wrong: rows and columns swapped, or positions that change with the size of the image."""
    height, width, size = 3, 5, 8
    angles = rotary_angles(height, width, size)
    for row in range(height):
        for column in range(width):
            for k in range(size // 4):
                frequency = 10000 ** (-4 * k / size)
                turned_by_column, turned_by_row = angles[row * width + column, 2 * k : 2 * k + 2].tolist()
                assert turned_by_column == pytest.approx(16 * column / (width - 1) * frequency, abs=1e-12)
                assert turned_by_row == pytest.approx(16 * row / (height - 1) * frequency, abs=1e-12)


def test_rotation_is_ddts_up_to_the_order_of_channels() -> None:
    """Wrong: a converter of published weights could not exist."""
    size = 12
    rope = RotaryEmbedding2D(2, 3, size).double()
    x = torch.randn(2, 6, 4, size, dtype=DOUBLE)
    angles = rotary_angles(2, 3, size)[:, None]
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones_like(angles), angles)
    neighbours = torch.view_as_real(turned).flatten(-2)
    halves = torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)])
    torch.testing.assert_close(rope(x[..., halves]), neighbours[..., halves], atol=1e-6, rtol=0)


def test_rotated_products_depend_on_distance_only() -> None:
    """Wrong: attention would see absolute positions."""
    rope = RotaryEmbedding2D(4, 4, 8).double()
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=DOUBLE).expand(2, 1, 16, 1, 8)
    products = (rope(q)[0, :, 0] @ rope(k)[0, :, 0].T).view(4, 4, 4, 4)  # row, column, row', column'
    torch.testing.assert_close(products[1:, 1:, 1:, 1:], products[:-1, :-1, :-1, :-1], atol=1e-5, rtol=0)
    assert not torch.allclose(products[0, 0, 0, 1], products[0, 0, 1, 0], atol=1e-3)


@pytest.mark.parametrize("qk_norm", [True, False])
def test_attention_is_the_formula(qk_norm: bool) -> None:
    """Wrong: heads mixed up, a missing scale, or the q/k norm switch without effect."""
    attention = randomized(Attention(16, 2, qk_norm=qk_norm))
    rope = RotaryEmbedding2D(2, 3, 8).double()
    x = torch.randn(2, 6, 16, dtype=DOUBLE)
    outputs = []
    for head in range(2):
        rows = slice(8 * head, 8 * head + 8)
        q, k, v = (x @ attention.qkv.weight[16 * part : 16 * part + 16][rows].T for part in range(3))
        q, k = attention.q_norm(q), attention.k_norm(k)
        q, k = (rope(tensor[:, :, None])[:, :, 0] for tensor in (q, k))
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(8), dim=-1)
        outputs.append(weights @ v)
    expected = torch.cat(outputs, dim=-1) @ attention.proj.weight.T + attention.proj.bias
    torch.testing.assert_close(attention(x, rope), expected)
    assert attention.qkv.bias is None
    assert len(list(attention.parameters())) == (5 if qk_norm else 3)


@pytest.mark.parametrize("num_tokens", [64, 65])
def test_short_and_long_attention_agree_in_bfloat16(num_tokens: int) -> None:
    """Wrong: the shortcut for short sequences on CPU would compute something else."""
    q, k, v = torch.randn(3, 2, 3, num_tokens, 16).bfloat16().unbind()
    expected = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert attend(q, k, v).dtype == torch.bfloat16
    torch.testing.assert_close(attend(q, k, v).float(), expected, atol=2e-2, rtol=2e-2)


def test_more_sequences_than_a_gpu_takes_are_attended_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: 128 guided images of 256 pixels, whose 65,536 patches an attention head takes as one batch, would fail."""
    q, k, v = torch.randn(3, 7, 2, 5, 4, dtype=DOUBLE, requires_grad=True).unbind()
    expected = attend(q, k, v)
    original, sizes = torch.nn.functional.scaled_dot_product_attention, []

    def limited(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        sizes.append(len(q))
        return original(q, k, v)

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", limited)
    monkeypatch.setattr("dip.model.layers._MOST_SEQUENCES", 3)
    torch.testing.assert_close(attend(q, k, v), expected)
    assert sizes == [3, 3, 1]


def test_swiglu_is_the_formula() -> None:
    """Wrong: gate and value swapped, or a hidden width other than int(2/3 x 4D)."""
    mlp = randomized(SwiGLU(8))
    x = torch.randn(3, 8, dtype=DOUBLE)
    gate = x @ mlp.w1.weight.T
    expected = (gate * torch.sigmoid(gate) * (x @ mlp.w3.weight.T)) @ mlp.w2.weight.T
    torch.testing.assert_close(mlp(x), expected)
    assert mlp.w1.weight.shape == (int(2 / 3 * 32), 8)
    assert SwiGLU(1152).w2.weight.shape == (1152, 3072)


def test_swiglu_in_one_product() -> None:
    """Wrong: samples drawn on a GPU, where w1 and w3 are one matrix, would be of another model."""
    mlp, x = randomized(SwiGLU(8)), torch.randn(2, 3, 8, dtype=DOUBLE)
    before = mlp(x)
    weights = {name: value.clone() for name, value in mlp.state_dict().items()}
    mlp.freeze()
    torch.testing.assert_close(mlp(x), before)
    assert all(torch.equal(value, weights[name]) for name, value in mlp.state_dict().items())


def test_sizes_that_do_not_fit_are_named() -> None:
    """Wrong: the user would meet a reshape error deep in the model."""
    with pytest.raises(ValueError, match="hidden size 10 is not divisible by the number of attention heads 3"):
        Attention(10, 3)
    with pytest.raises(ValueError, match=r"divisible by 4 .* = 6"):
        RotaryEmbedding2D(2, 2, 6)
