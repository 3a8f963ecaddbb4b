"""Norms and attention in place are those of the layers, with the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dip.model import DiP, build_model
from dip.model.in_place import attention, rms_norm
from dip.model.layers import Attention, RMSNorm, RotaryEmbedding2D
from dip.schema import Model
from dip.speed import set_speed

HEADS = [
    {"name": "none"},
    {"name": "unet", "depth": 2, "width": 4},
    {"name": "attention", "width": 16, "num_heads": 2},
    {"name": "coordinate", "width": 8},
]


def with_gradients(module: nn.Module, x: Tensor, *others: object) -> list[Tensor]:
    """Output, and the gradients of x and of all weights, made twice from the same saved values."""
    x = x.clone().requires_grad_()
    y = module(x, *others)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    before = grad.clone()
    inputs = [x, *module.parameters()]
    first, second = (torch.autograd.grad(y, inputs, grad, retain_graph=retain) for retain in (True, False))
    assert all(map(torch.equal, first, second)), "what was saved for the gradients was overwritten"
    assert torch.equal(grad, before)
    return [y, *first]


@pytest.mark.parametrize("shape", [(3, 12), (5, 3, 12)])
def test_norm(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a training on a CPU with bfloat16 would follow other gradients."""
    norm, x = RMSNorm(12, eps=0.1), torch.randn(shape)
    nn.init.normal_(norm.weight)
    usual = with_gradients(norm, x)
    monkeypatch.setattr(norm, "forward", lambda x: rms_norm(x, norm.weight, norm.eps))
    torch.testing.assert_close(with_gradients(norm, x), usual, rtol=1e-4, atol=1e-5)


def test_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: as for the norm; halves of a head's channels would be turned the wrong way, or q taken for k."""
    module, rope, x = Attention(24, 2), RotaryEmbedding2D(3, 4, 12), torch.randn(5, 12, 24)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    usual = with_gradients(module, x, rope)

    def forward(x: Tensor, rope: RotaryEmbedding2D) -> Tensor:
        qkv = module.qkv(x).unflatten(-1, (3, 2, 12))
        before = qkv.clone()
        y = attention(qkv, module.q_norm.weight, module.k_norm.weight, *rope.tables(), module.q_norm.eps)
        assert torch.equal(qkv, before)
        return module.proj(y)

    monkeypatch.setattr(module, "forward", forward)
    torch.testing.assert_close(with_gradients(module, x, rope), usual, rtol=1e-4, atol=1e-5)


def model_of(head: dict[str, object]) -> DiP:
    """A small model in which everything has a say."""
    settings = {"patch_size": 4, "hidden_size": 32, "depth": 2, "num_heads": 2, "head": head}
    torch.manual_seed(0)
    model = build_model(Model.model_validate(settings), 8, 2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("head", HEADS, ids=lambda head: str(head["name"]))
def test_a_training_step_in_bfloat16(head: dict[str, object]) -> None:
    """Wrong: the speed "fast" would be less exact than the layers as they are written."""
    generator = torch.Generator().manual_seed(1)
    x_t, t, y = torch.randn(16, 3, 8, 8, generator=generator), torch.rand(16, generator=generator), torch.arange(16) % 3

    def gradients(speed: str, *, low: bool) -> Tensor:
        model = model_of(head)
        set_speed(model, speed)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            v = model(x_t, t, y)
        loss = v.float().square().mean()
        values = [v, *torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])]
        return torch.cat([(value.float() / value.float().norm()).flatten() for value in values])

    exact, usual, ours = gradients("plain", low=False), gradients("plain", low=True), gradients("fast", low=True)
    assert not torch.equal(ours, usual)
    assert (ours - exact).norm() < 1.2 * (usual - exact).norm()


def test_only_fast_on_a_cpu_works_in_place() -> None:
    """Wrong: plain would not be what the field writes, and a compiler would fuse nothing."""
    model = model_of(HEADS[2])
    found = []
    for speed in ("fast", "plain", "fast", "compiled"):
        set_speed(model, speed)
        found.append({m.kernel is not None for m in model.modules() if isinstance(m, RMSNorm | Attention)})
    assert found == [{True}, {False}, {True}, {False}]
