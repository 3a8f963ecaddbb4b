"""Checkpoints of the improved-DiT lineage: order of q and k against the formula, names, and what cannot be taken."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dip.model import build_model
from dip.model.layers import Attention, RotaryEmbedding2D, rotary_angles
from dip.model.lineage import find_backbone, neighbours_to_halves, to_backbone, unwrapped

Small = Callable[..., SimpleNamespace]
HIDDEN, HEADS, DEPTH = 16, 2, 2


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * weight


def rotated_in_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """RoFormer's rotation: channels 2j and 2j + 1 are the complex number that turns by angle j."""
    turn = torch.complex(angles.cos().float().double(), angles.sin().float().double())  # (N, d / 2)
    return torch.view_as_real(torch.complex(x[..., 0::2], x[..., 1::2]) * turn).flatten(-2)


def attention_in_pairs(x: Tensor, weights: dict[str, Tensor], angles: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v, head by head, with q and k rotated in pairs."""
    heads = []
    for head in range(HEADS):
        size = HIDDEN // HEADS
        rows = slice(head * size, (head + 1) * size)
        q, k, v = (x @ part[rows].T for part in weights["qkv.weight"].split(HIDDEN))
        q = rotated_in_pairs(rms_norm(q, weights["q_norm.weight"]), angles)
        k = rotated_in_pairs(rms_norm(k, weights["k_norm.weight"]), angles)
        heads.append(torch.softmax(q @ k.transpose(-1, -2) / size**0.5, dim=-1) @ v)
    return torch.cat(heads, dim=-1) @ weights["proj.weight"].T + weights["proj.bias"]


def improved_dit(depth: int = DEPTH) -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of an improved DiT for patches of 4 x 4 and 10 classes."""
    d, inner, generator = HIDDEN, 2 * 4 * HIDDEN // 3, torch.Generator().manual_seed(0)
    names = {
        "x_embedder.proj.weight": (d, 48),
        "x_embedder.proj.bias": (d,),
        "t_embedder.mlp.0.weight": (d, 256),
        "t_embedder.mlp.0.bias": (d,),
        "t_embedder.mlp.2.weight": (d, d),
        "t_embedder.mlp.2.bias": (d,),
        "y_embedder.embedding_table.weight": (11, d),
        "final_layer.linear.weight": (48, d),
        "final_layer.linear.bias": (48,),
        "final_layer.adaLN_modulation.0.weight": (2 * d, d),
        "final_layer.adaLN_modulation.0.bias": (2 * d,),
    }
    for number in range(depth):
        names |= {
            f"blocks.{number}.{name}": shape
            for name, shape in {
                "norm1.weight": (d,),
                "attn.qkv.weight": (3 * d, d),
                "attn.q_norm.weight": (d // HEADS,),
                "attn.k_norm.weight": (d // HEADS,),
                "attn.proj.weight": (d, d),
                "attn.proj.bias": (d,),
                "norm2.weight": (d,),
                "mlp.w1.weight": (inner, d),
                "mlp.w3.weight": (inner, d),
                "mlp.w2.weight": (d, inner),
                "adaLN_modulation.0.weight": (6 * d, d),
                "adaLN_modulation.0.bias": (6 * d,),
            }.items()
        }
    return {name: torch.randn(shape, generator=generator) for name, shape in names.items()}


def moved(source: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    """The same with another beginning of some names."""
    return {new + name.removeprefix(old) if name.startswith(old) else name: value for name, value in source.items()}


def test_channels_of_every_head_are_reordered() -> None:
    """Wrong: channels would move from one head to another."""
    assert neighbours_to_halves(torch.arange(12), 6).tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]


def test_converted_attention_is_that_of_the_lineage() -> None:
    """Wrong: a loaded backbone would attend to other tokens than the one that was trained."""
    torch.manual_seed(0)
    angles = rotary_angles(3, 4, HIDDEN // HEADS)
    published = {
        name.removeprefix("blocks.1.attn."): value.double()
        for name, value in improved_dit().items()
        if name.startswith("blocks.1.attn.")
    }
    weights = to_backbone(improved_dit(), DEPTH, HEADS).weights
    attention = Attention(HIDDEN, HEADS).double()
    attention.load_state_dict({name: weights[f"blocks.1.attn.{name}"] for name in attention.state_dict()})
    rope = RotaryEmbedding2D(3, 4, HIDDEN // HEADS).double()
    x = torch.randn(2, 12, HIDDEN, dtype=torch.float64)
    torch.testing.assert_close(attention(x, rope), attention_in_pairs(x, published, angles), rtol=1e-10, atol=1e-10)
    attention.qkv.weight.data = published["qkv.weight"]
    assert (attention(x, rope) - attention_in_pairs(x, published, angles)).abs().max() > 1e-2, "the order matters"


def test_every_parameter_of_a_dit_has_its_place(small: Small) -> None:
    """Wrong: a parameter would keep its random start, or have another shape."""
    backbone = to_backbone(improved_dit(), DEPTH, HEADS)
    model = build_model(small("none"), 16, 10)
    expected = {name: value.shape for name, value in model.state_dict().items()}
    assert {name: value.shape for name, value in backbone.weights.items()} == expected
    assert backbone.layout == "improved DiT" and not backbone.left


def test_this_project_s_names_and_order_stay(small: Small) -> None:
    """Wrong: q and k of this project's own weights would be shuffled."""
    state = build_model(small("unet"), 16, 10).state_dict()
    backbone = to_backbone(state, DEPTH, HEADS)
    assert backbone.layout == "dip"
    assert all(value is state[name] for name, value in backbone.weights.items())
    assert {name.split(".")[0] for name in backbone.left} == {"head"}


def test_backbone_of_a_model_with_its_own_head() -> None:
    """Wrong: PixNerd's head (`x_embedder`, blocks without attention, `final_layer`) would be taken for the backbone."""
    source = moved(improved_dit(), "x_embedder.", "s_embedder.")
    source = {name: value for name, value in source.items() if not name.startswith("final_layer.")}
    head = {"x_embedder.embedder.0.weight", "blocks.2.param_generator1.0.weight", "final_layer.linear.weight"}
    backbone = to_backbone(source | dict.fromkeys(head, torch.zeros(1)), DEPTH, HEADS)
    assert backbone.layout == "PixNerd"
    assert torch.equal(backbone.weights["x_embedder.weight"], source["s_embedder.proj.weight"])
    assert not any(name.startswith("final_layer.") for name in backbone.weights)
    assert backbone.left == dict.fromkeys(head, "the head's, not the backbone's")


def test_encoder_of_a_decoupled_ddt() -> None:
    """Wrong: its decoder, which sees the encoder's output as the condition, would be taken."""
    source = improved_dit(depth=3)
    embedding = {f"s_embedder.proj.{kind}": torch.randn(1) for kind in ("weight", "bias")}
    backbone = to_backbone(source | embedding, DEPTH, HEADS)
    assert backbone.layout == "decoupled DDT"
    assert backbone.weights["x_embedder.bias"] is embedding["s_embedder.proj.bias"]
    assert {name.split(".")[0] for name in backbone.left} == {"x_embedder", "final_layer", "blocks"}
    assert {name.split(".")[1] for name in backbone.left if name.startswith("blocks")} == {"2"}
    with pytest.raises(ValueError, match="a decoupled DDT of 3 blocks, the model has 3"):
        to_backbone(source | embedding, 3, HEADS)


@pytest.mark.parametrize("depth", [1, 3])
def test_other_depth_is_refused(depth: int) -> None:
    """Wrong: some blocks would be random, or be dropped, and the training would start from something else."""
    with pytest.raises(ValueError, match=f"it has 2 transformer blocks, the model {depth}"):
        to_backbone(improved_dit(), depth, HEADS)


def test_wrappers_are_taken_off() -> None:
    """Wrong: a checkpoint of a compiled or distributed model would have no backbone."""
    assert unwrapped("denoiser._orig_mod.blocks.0.norm1.weight") == "denoiser.blocks.0.norm1.weight"
    assert unwrapped("module._orig_mod.x_embedder.weight") == "x_embedder.weight"


@pytest.mark.parametrize(
    ("prefixes", "chosen"),
    [
        ([""], ""),
        (["denoiser."], "denoiser."),
        (["state_dict.denoiser.", "state_dict.ema_denoiser."], "state_dict.ema_denoiser."),
        (["model.", "ema."], "ema."),
        (["net.", "ema_tracker.net."], "ema_tracker.net."),
        (["schema."], "schema."),
    ],
)
def test_averaged_weights_are_preferred(prefixes: list[str], chosen: str) -> None:
    """Wrong: a training would start from the noisier weights."""
    names = {prefix + name for prefix in prefixes for name in improved_dit()}
    assert find_backbone(names | {"encoder.blocks.0.attn.qkv.weight", "optimizer.step"}) == chosen


def test_choice_that_is_not_clear_is_refused() -> None:
    """Wrong: which of two models is loaded would be chance."""
    with pytest.raises(ValueError, match=r"several backbones, under 'a\.', 'b\.'"):
        find_backbone({prefix + name for prefix in ("a.", "b.") for name in improved_dit()})


@pytest.mark.parametrize("names", [set(), {"blocks.0.attn.qkv.weight"}, {"t_embedder.mlp.0.weight"}])
def test_file_without_a_backbone_is_refused(names: set[str]) -> None:
    """Wrong: an image encoder or an optimiser's state would be searched for weights, name by name."""
    with pytest.raises(ValueError, match="no backbone of a DiT in it"):
        find_backbone(names)


def test_patch_embedding_of_no_layout() -> None:
    """Wrong: a KeyError that names no file."""
    source = moved(improved_dit(), "x_embedder.", "patch_embed.")
    with pytest.raises(ValueError, match="it has no patch embedding"):
        to_backbone(source, DEPTH, HEADS)
