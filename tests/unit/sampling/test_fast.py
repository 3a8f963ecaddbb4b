"""Fast and compiled sampling give the samples of the plain path."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compiler import needs_compiler
from dip import model as models
from dip import speed as speeds
from dip.diffusion.sampler import SOLVERS
from dip.model import DiP, build_model
from dip.model.layers import SwiGLU
from dip.sampling import fast
from dip.sampling.fast import FastSampler
from dip.sampling.packed import can_pack
from dip.schema import Model, Sampling

HEADS = {
    "none": {"head": {"name": "none"}},
    "unet": {"head": {"name": "unet", "depth": 2, "width": 4}},
    "mlp": {"head": {"name": "mlp"}},
    "attention": {"head": {"name": "attention", "width": 8, "num_heads": 2, "context_width": 2}},
    "coordinate": {"head": {"name": "coordinate", "width": 8}},
    "hybrid": {"head": {"name": "unet", "depth": 2, "width": 4}, "placement": "hybrid"},
}
Y = torch.tensor([1, 0, 1])


def make(kind: str) -> DiP:
    """A small model in which everything has a say."""
    settings = {"patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2, **HEADS[kind]}
    torch.manual_seed(0)
    model = build_model(Model.model_validate(settings), 8, 2)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def sampling(**changes: object) -> Sampling:
    settings = {"num_steps": 10, "cfg_scale": 2.0, "cfg_interval": (0.25, 0.7), "precision": "fp32"}
    return Sampling(**(settings | changes))


def noise(batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_every_head_is_sampled() -> None:
    """Wrong: a new head would be sampled at the default speed, and tested at the plain one alone."""
    assert {settings["head"]["name"] for settings in HEADS.values()} == {*models.HEADS, "none"}


@pytest.mark.parametrize("kind", HEADS)
def test_fast_is_plain_to_rounding(kind: str) -> None:
    """Wrong: a model would be given another time, label or weight than the one it was trained with."""
    plain = FastSampler(make(kind), sampling(), speed="plain")(noise(), Y)
    quick = FastSampler(make(kind), sampling(), speed="fast")(noise(), Y)
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5)
    assert plain.std() > 0.1


@pytest.mark.parametrize(
    "changes", [*({"solver": solver} for solver in SOLVERS), {"cfg_scale": 1.0}, {"cfg_interval": (0.0, 1.0)}]
)
@pytest.mark.parametrize("table_bytes", [1, 2**12, 2**28])
def test_every_portion_of_the_steps_is_known(
    changes: dict[str, object], table_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: a solver that takes several velocities a step, or a table that holds few steps, would get others."""
    monkeypatch.setattr(fast, "_TABLE_BYTES", table_bytes)
    plain = FastSampler(make("unet"), sampling(**changes), speed="plain")(noise(), Y)
    quick = FastSampler(make("unet"), sampling(**changes), speed="fast")(noise(), Y)
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps_held", "expected"), [(100, [10 * 3]), (4, [4 * 3, 4 * 3, 2 * 3])])
def test_conditioning_is_computed_once_for_each_time_and_label(
    monkeypatch: pytest.MonkeyPatch, steps_held: int, expected: list[int]
) -> None:
    """Wrong: a third of the weights would be read in each step again, or the table would outgrow the memory."""
    computed: list[int] = []
    conditioning = DiP.conditioning

    def counted(self: DiP, t: Tensor, y: Tensor) -> object:
        computed.append(len(t))
        return conditioning(self, t, y)

    monkeypatch.setattr(DiP, "conditioning", counted)
    modulations = 2 * 6 * 16  # of two blocks
    monkeypatch.setattr(fast, "_TABLE_BYTES", steps_held * 3 * modulations * 4)
    FastSampler(make("unet"), sampling(), speed="fast")(noise(), Y)
    assert computed == expected, "ten steps of two labels and of none"


@pytest.mark.parametrize("speed", ["plain", "fast"])
def test_a_warm_up_takes_the_steps_that_it_is_asked_for(speed: str) -> None:
    """Wrong: `dip latency` would draw every batch twice."""
    warm = FastSampler(make("unet"), sampling(), speed=speed)(noise(), Y, num_steps=2)
    assert torch.equal(warm, FastSampler(make("unet"), sampling(num_steps=2), speed=speed)(noise(), Y))


def test_a_velocity_is_guided_by_the_sampling_that_it_is_asked_for() -> None:
    """Wrong: a step timed as guided would be half of one."""
    sampler = FastSampler(make("unet"), sampling(), speed="fast")
    with torch.inference_mode():
        inside, outside = (
            sampler.velocity(Y, sampling(cfg_interval=interval))(noise(), 0.0) for interval in ((0.0, 1.0), (0.5, 1.0))
        )
    assert not torch.allclose(inside, outside)


@pytest.mark.skipif(not can_pack(torch.float32), reason="this PyTorch was built without oneDNN")
def test_weights_are_packed_once_and_not_kept_twice() -> None:
    """Wrong: a model would take twice its memory, or a second sampler of it would pack what is packed."""
    model = make("unet")
    before = {name for name, _ in model.blocks.named_parameters()}
    first, second = (FastSampler(model, sampling(), speed="fast")(noise(), Y) for _ in range(2))
    assert torch.equal(first, second)
    packed = before - {name for name, _ in model.blocks.named_parameters()}
    weights = {f"0.{name}.weight" for name in ("attn.qkv", "attn.proj", "mlp.w1", "mlp.w2", "mlp.w3")}
    assert {name for name in packed if name.startswith("0.")} == weights | {"0.attn.proj.bias"}


def test_a_machine_that_does_not_pack_keeps_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: sampling would fail where PyTorch has no oneDNN, as on a Mac."""
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    model = make("unet")
    quick = FastSampler(model, sampling(), speed="fast")(noise(), Y)
    assert isinstance(model.blocks[0].mlp, SwiGLU)
    plain = FastSampler(make("unet"), sampling(), speed="plain")(noise(), Y)
    torch.testing.assert_close(quick, plain, rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: weights that are held in bfloat16 would be computed with otherwise than autocast does."""
    monkeypatch.setattr("dip.precision._has_bfloat16", lambda device_type: True)
    settings = sampling(precision="bf16")
    exact = FastSampler(make("unet"), sampling(), speed="plain")(noise(), Y)
    plain = FastSampler(make("unet"), settings, speed="plain")(noise(), Y)
    model = make("unet")
    quick = FastSampler(model, settings, speed="fast")(noise(), Y)
    assert model.blocks[0].adaLN_modulation.weight.dtype == torch.bfloat16
    assert quick.dtype == torch.float32
    assert (quick - exact).norm() < 1.5 * (plain - exact).norm() + 1e-6, "as far from float32 as autocast is"


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("kind", ["unet", "none", "hybrid"])
def test_compiled_is_plain_to_rounding(kind: str) -> None:
    """Wrong: the compiler would change a result, or a batch of another size would fail."""
    compiled = FastSampler(make(kind), sampling(), speed="compiled")
    for batch in (3, 2):
        plain = FastSampler(make(kind), sampling(), speed="plain")(noise(batch), Y[:batch])
        torch.testing.assert_close(compiled(noise(batch), Y[:batch]), plain, rtol=1e-4, atol=1e-5)


def test_a_machine_that_cannot_compile_samples_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: days of training would end in an error of a compiler that nobody asked for."""

    def broken(self: nn.Module, **options: object) -> None:
        self._compiled_call_impl = fail

    error = RuntimeError

    def fail(*arguments: object) -> None:
        raise error("no compiler\nand much more")

    monkeypatch.setattr(nn.Module, "compile", broken)
    monkeypatch.setattr(speeds, "default_speed", lambda device: "compiled")
    sampler = FastSampler(make("unet"), sampling())
    plain = FastSampler(make("unet"), sampling(), speed="plain")(noise(), Y)
    torch.testing.assert_close(sampler(noise(), Y), plain, rtol=1e-4, atol=1e-5)
    assert sampler.speed == "fast"
    assert "(no compiler); sampling at the speed 'fast'" in caplog.text
    with pytest.raises(RuntimeError, match="no compiler"):
        FastSampler(make("unet"), sampling(), speed="compiled")(noise(), Y)
    error = torch.cuda.OutOfMemoryError
    with pytest.raises(error):
        FastSampler(make("unet"), sampling())(noise(), Y)


def test_the_speed_is_settled_before_samples_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: samples.json would name a speed that its samples were not drawn with."""

    def fail(*arguments: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: setattr(self, "_compiled_call_impl", fail))
    monkeypatch.setattr(speeds, "default_speed", lambda device: "compiled")
    sampler = FastSampler(make("unet"), sampling())
    sampler.settle(3, 8)
    assert sampler.speed == "fast"


def test_weights_that_come_later_are_the_ones_sampled_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the head would go on with the weights that were there when it was made ready."""
    first, other = make("unet"), make("unet")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    state = other.state_dict()
    sampler = FastSampler(first, sampling(), speed="fast")
    first.load_state_dict(state)
    torch.testing.assert_close(sampler(noise(), Y), FastSampler(other, sampling(), speed="fast")(noise(), Y))
    monkeypatch.setattr("dip.precision._has_bfloat16", lambda device_type: True)
    model = make("unet")
    once = FastSampler(model, sampling(precision="bf16"), speed="fast")(noise(), Y)
    twice = FastSampler(model, sampling(precision="bf16"), speed="fast")(noise(), Y)
    assert torch.equal(once, twice), "taps are not added up again from rounded weights"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("speed", ["fast", "compiled"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_on_a_gpu(speed: str, solver: str) -> None:
    """Wrong: a recorded step would read what was there when it was recorded, or overwrite what a solver keeps."""
    device = torch.device("cuda")
    plain = FastSampler(make("unet").to(device), sampling(solver=solver), speed="plain")
    quick = FastSampler(make("unet").to(device), sampling(solver=solver), speed=speed)
    for batch in (3, 2, 3):
        x_0, y = noise(batch).to(device), Y[:batch].to(device)
        torch.testing.assert_close(quick(x_0, y), plain(x_0, y), rtol=1e-3, atol=1e-3)
