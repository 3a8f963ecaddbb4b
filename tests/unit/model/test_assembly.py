"""The whole model: every head in every place, and what it refuses."""

from __future__ import annotations

import typing

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from compiler import needs_compiler
from dip import schema
from dip.model import HEADS, INITIALISATIONS, PLACEMENTS, build_model
from dip.schema.models import Initialisation

EVERY_MODEL = [("none", "post_hoc"), *((head, placement) for head in HEADS for placement in PLACEMENTS)]


def build(settings, image_size: int = 8, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(settings, image_size, num_classes=3)


def batch(image_size: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy images, times and labels; the last label is "no class"."""
    generator = torch.Generator().manual_seed(1)
    x_t = torch.randn(3, 3, image_size, image_size, generator=generator)
    return x_t, torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 2, 3])


def randomize(model: nn.Module) -> nn.Module:
    """Normal weights everywhere: as after training, nothing is zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return model


@pytest.mark.parametrize(("head", "placement"), EVERY_MODEL)
def test_every_head_trains_in_every_place(small, head: str, placement: str) -> None:
    """Wrong: a combination of Table 2 and Figure 8 cannot run, or has weights that nothing trains."""
    model = randomize(build(small(head, placement=placement)))
    x_t, t, y = batch()
    v = model(x_t, t, y)
    assert v.shape == x_t.shape
    v.square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(("head", "placement"), EVERY_MODEL)
def test_same_seed_same_model(small, head: str, placement: str) -> None:
    """Wrong: a run could not be repeated."""
    first, second = (build(small(head, placement=placement), seed=5) for _ in range(2))
    other = build(small(head, placement=placement), seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.x_embedder.weight, other.x_embedder.weight)
    torch.testing.assert_close(first(*batch()), second(*batch()), rtol=0, atol=0)


@pytest.mark.parametrize(("head", "placement"), EVERY_MODEL)
def test_placement_decides_which_heads_and_which_end(small, head: str, placement: str) -> None:
    """Wrong: Figure 5 drawn differently; or a learning rate for the head that misses one of them."""
    model = build(small(head, placement=placement))
    parts = {name.split(".")[0] for name, _ in model.named_parameters()}
    backbone = {"x_embedder", "t_embedder", "y_embedder", "blocks"}
    expected = {"post_hoc": {"head"}, "intermediate": {"intermediate", "final_layer"}}
    expected["hybrid"] = {"head", "intermediate"}
    assert parts - backbone == ({"final_layer"} if head == "none" else expected[placement])
    ours = {id(p) for p in model.head_parameters()}
    named = {id(p) for name, p in model.named_parameters() if name.split(".")[0] in ("head", "intermediate")}
    assert ours == named


def test_params_yaml_and_registries_have_the_same_names() -> None:
    """Wrong: params.yaml would accept a name that no class has, or refuse one that exists."""
    kinds = typing.get_args(typing.get_args(schema.Head)[0])
    names = {typing.get_args(kind.model_fields["name"].annotation)[0] for kind in kinds}
    assert names == {*HEADS, "none"}
    assert set(typing.get_args(schema.Model.model_fields["placement"].annotation)) == set(PLACEMENTS)
    assert set(typing.get_args(Initialisation)) == set(INITIALISATIONS)


def test_settings_of_params_yaml_build_a_model(small) -> None:
    """Wrong: the schema and the model disagree about a setting's name."""
    shape = {"patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2, "placement": "hybrid"}
    for name in HEADS:
        settings = schema.Model.model_validate(shape | {"head": vars(small(name).head)})
        assert build(settings)(*batch()).shape == (3, 3, 8, 8)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_tokens_after_a_block_are_that_blocks_output(small, placement: str) -> None:
    """Wrong: alignment would pull on other tokens than those of the block it names."""
    model = randomize(build(small("mlp", placement=placement)))
    for number in (1, 2):
        seen = []
        hook = model.blocks[number - 1].register_forward_hook(lambda m, args, output, seen=seen: seen.append(output))
        v, tokens = model(*batch(), tokens_after=number)
        hook.remove()
        torch.testing.assert_close(tokens, seen[0], rtol=0, atol=0)
        torch.testing.assert_close(v, model(*batch()), rtol=0, atol=0)
        assert tokens.shape == (3, 4, 16)


def test_intermediate_head_adds_to_the_tokens_of_the_next_block(small) -> None:
    """Wrong: the head would sit elsewhere than `intermediate_block` says, or replace the tokens."""
    model = randomize(build(small("mlp", placement="intermediate", depth=4, intermediate_block=3)))
    outputs, inputs = [], []
    model.blocks[2].register_forward_hook(lambda m, args, output: outputs.append(output))
    model.blocks[3].register_forward_pre_hook(lambda m, args: inputs.append(args[0]))
    refined = []
    model.intermediate.head.register_forward_hook(lambda m, args, output: refined.append(output))
    model(*batch())
    torch.testing.assert_close(inputs[0], outputs[0] + model.intermediate.proj(refined[0]))
    assert build(small("mlp", placement="hybrid", depth=5)).intermediate_block == 2


def test_time_and_label_reach_every_image_alone(small) -> None:
    """Wrong: images of a batch would leak into each other, or the condition would be ignored."""
    model = randomize(build(small()))
    x_t, t, y = batch()
    v = model(x_t, t, y)
    alone = torch.cat([model(x_t[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(v, alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(v, model(x_t, t.flip(0), y), atol=1e-4)
    assert not torch.allclose(v, model(x_t, t, y.flip(0)), atol=1e-4)


def test_condition_is_that_of_the_lineage(small) -> None:
    """Wrong: a pre-trained backbone would be modulated by another condition than SiLU(t_emb + y_emb), and be lost."""
    model = randomize(build(small("none")))
    _, t, y = batch()
    condition = F.silu(model.t_embedder(t) + model.y_embedder.embedding_table.weight[y])
    _, blocks, final = model.conditioning(t, y)
    for part, modulation in zip((*model.blocks, model.final_layer), (*blocks, final), strict=True):
        layer = part.adaLN_modulation
        torch.testing.assert_close(modulation, F.linear(condition, layer.weight, layer.bias)[:, None])


@pytest.mark.parametrize("head", ["none", *HEADS])
def test_zero_initialisation_predicts_zero(small, head: str) -> None:
    """Wrong: DiT-only and heads with a zero output layer would not start where the lineage starts."""
    model = build(small(head, head_settings={"initialisation": "zero"}))
    assert not model(*batch()).any()


def test_backbone_starts_as_the_settings_say(small) -> None:
    """Wrong: label embeddings of another scale (they decide how fast small runs learn classes)."""
    wide = build(small(hidden_size=256, label_embedding_std=1.0))
    assert wide.y_embedder.embedding_table.weight.std().item() == pytest.approx(1.0, rel=0.1)
    narrow = build(small(hidden_size=256))
    assert narrow.y_embedder.embedding_table.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert narrow.t_embedder.mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    bound = (6 / (256 + 768)) ** 0.5
    assert narrow.blocks[0].attn.qkv.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert not any(block.adaLN_modulation.weight.any() for block in narrow.blocks)


def test_both_embeddings_of_patches_start_as_dit_s(small) -> None:
    """Wrong: patches would reach the tokens at PyTorch's own scale, and with random biases."""
    model = build(small("unet", placement="intermediate"))
    for linear in (model.x_embedder, model.intermediate.proj):
        bound = (6 / sum(linear.weight.shape)) ** 0.5
        assert 0.95 * bound < linear.weight.abs().max() <= bound and not linear.bias.any()


@pytest.mark.slow
def test_state_dict_holds_parameters_only_and_survives_compile(small) -> None:
    """Wrong: checkpoints would carry tables that depend on the image size, or `_orig_mod.` names."""
    model = build(small("coordinate"))
    names = list(model.state_dict())
    assert names == [name for name, _ in model.named_parameters()]
    model.compile()
    assert list(model.state_dict()) == names
    other = build(small("coordinate"), seed=1)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.x_embedder.weight, model.x_embedder.weight)


@pytest.mark.parametrize("head", ["none", *HEADS])
def test_autocast_to_bfloat16_stays_close(small, head: str) -> None:
    """Wrong: training in bf16 on CPU fails on a dtype, or computes something else."""
    model = randomize(build(small(head)))
    expected = model(*batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        v = model(*batch())
        v.float().square().mean().backward()
    assert v.dtype in (torch.bfloat16, torch.float32)
    assert (v.float() - expected).norm() < 0.05 * expected.norm()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("head", ["none", *HEADS])
def test_whole_model_in_bfloat16_runs(small, head: str) -> None:
    """Wrong: weights in half precision could not sample."""
    model = build(small(head)).bfloat16()
    x_t, t, y = batch()
    assert model(x_t.bfloat16(), t, y).dtype == torch.bfloat16


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("head", "placement"),
    [*((head, "post_hoc") for head in ("none", *HEADS)), ("unet", "intermediate"), ("unet", "hybrid")],
)
def test_compiled_model_is_the_same_function(small, head: str, placement: str) -> None:
    """Wrong: a compiled model is another model, or its weights have other names once it has run."""
    model = randomize(build(small(head, placement=placement)))
    names, expected = list(model.state_dict()), model(*batch())
    model.compile(fullgraph=True)
    torch.testing.assert_close(model(*batch()), expected, rtol=1e-3, atol=1e-3)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"patch_size": 3}, "image size 8 is not divisible by patch size 3"),
        ({"num_heads": 3}, "hidden size 16 is not divisible by the number of attention heads 3"),
        ({"num_heads": 8}, r"divisible by 4 .* hidden size / number of heads = 2"),
        (
            {"head": "transformer"},
            f"unknown head 'transformer', expected one of {', '.join(HEADS)}",
        ),
        ({"placement": "first"}, "unknown placement 'first', expected one of post_hoc, intermediate, hybrid"),
        ({"head_input": "pixels"}, "unknown head_input 'pixels'"),
        (
            {"head": "mlp", "head_input": "image"},
            "head_input: image .* needs a head that runs on whole images",
        ),
        (
            {"head": "none", "head_input": "image"},
            "head_input: image .* needs a head that runs on whole images",
        ),
        ({"head": "none", "placement": "hybrid"}, "placement 'hybrid' needs a head"),
        ({"placement": "hybrid", "intermediate_block": 2}, r"from 1 to depth - 1 = 1, got 2"),
        ({"placement": "hybrid", "intermediate_block": 0}, r"from 1 to depth - 1 = 1, got 0"),
        ({"placement": "intermediate", "depth": 1}, r"from 1 to depth - 1 = 0, got 0"),
        ({"head_settings": {"depth": 3}}, r"multiple of 2\^3 = 8, got patch size 4"),
        ({"head_settings": {"initialisation": "ones"}}, "unknown head initialisation 'ones'"),
    ],
)
def test_impossible_settings_are_named(small, overrides: dict, message: str) -> None:
    """Wrong: the user would meet a shape error, or a model other than the one asked for."""
    with pytest.raises(ValueError, match=message):
        build(small(**overrides))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["none", *HEADS])
def test_exported_model_takes_batches_of_any_size(small, head: str) -> None:
    """Wrong: a model given to another program would take batches of the size it was exported with, and no other."""
    model = randomize(build(small(head)))
    x_t, t, y = batch()
    example = x_t.repeat(2, 1, 1, 1), t.repeat(2), y.repeat(2)  # 3 images would look like 3 channels
    size = {0: torch.export.Dim("batch", min=1, max=64)}
    exported = torch.export.export(model, example, dynamic_shapes=(size, size, size), strict=False)
    torch.testing.assert_close(exported.module()(x_t, t, y), model(x_t, t, y), rtol=1e-5, atol=1e-5)


def test_wrong_inputs_are_named(small) -> None:
    """Wrong: broadcasting would turn a wrong batch into a wrong result."""
    model = build(small())
    x_t, t, y = batch()
    with pytest.raises(ValueError, match=r"x_t must have the shape \(B, 3, 8, 8\), got \(3, 3, 8, 4\)"):
        model(x_t[..., :4], t, y)
    with pytest.raises(ValueError, match=r"x_t must have the shape"):
        model(x_t[0], t, y)
    with pytest.raises(ValueError, match=r"t must have one value per image, \(3,\), got \(1,\)"):
        model(x_t, t[:1], y)
    with pytest.raises(ValueError, match=r"y must have one value per image"):
        model(x_t, t, y[:, None])
    for block in (0, 3):
        with pytest.raises(ValueError, match=f"tokens_after must be a block from 1 to 2, got {block}"):
            model(x_t, t, y, tokens_after=block)
