"""Solvers and guidance inside an interval, on velocity fields whose solution is known."""

from __future__ import annotations

import math
import typing

import pytest
import torch
from torch import Tensor, nn

from dip.diffusion.evaluations import evaluation_times, nfe_label, num_function_evaluations
from dip.diffusion.sampler import SOLVERS, integrate, sample, to_uint8
from dip.schema import Sampling

NULL = 5


class Field(nn.Module):
    """Velocity = the label for labelled images, -1 for unlabelled ones; records how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, int]] = []

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        assert t.shape == y.shape == x_t.shape[:1] and t.unique().numel() == 1
        self.calls.append((round(t[0].item(), 6), len(y)))
        v = torch.where(y == NULL, -1.0, y.float())
        return v[:, None, None, None].expand_as(x_t)


def settings(**changes: object) -> Sampling:
    return Sampling(**({"num_steps": 10} | changes))


@pytest.fixture
def x_0() -> Tensor:
    return torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))


Y = torch.tensor([0, 1, 2])


def test_euler_is_exact_on_straight_paths(x_0: Tensor) -> None:
    """Wrong: steps would not add up to 1, or the last would be missing; perfect models would miss the data."""
    x_1 = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))

    def towards(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return (x_1 - x_t) / (1 - t)[:, None, None, None]

    for num_steps in (1, 7, 100):
        torch.testing.assert_close(sample(towards, x_0, Y, settings(num_steps=num_steps), NULL), x_1)
    field = Field()
    torch.testing.assert_close(sample(field, x_0, Y, settings(), NULL), x_0 + Y[:, None, None, None])
    assert field.calls == [(round(step / 10, 6), 3) for step in range(10)], "from noise, t = 0, one pass each"


def test_error_of_euler_falls_with_the_step(x_0: Tensor) -> None:
    """Wrong: another time would be given to the model than the one it is at (dx/dt = x cos t)."""

    def field(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return x_t * torch.cos(t)[:, None, None, None]

    exact = x_0 * torch.exp(torch.sin(torch.tensor(1.0)))
    errors = [(sample(field, x_0, Y, settings(num_steps=n), NULL) - exact).abs().max().item() for n in (50, 100)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("ab2", 2)])
def test_order_of_a_solver(x_0: Tensor, solver: str, order: int) -> None:
    """Wrong: another method would hide behind the name (dx/dt = 2 x t)."""

    def field(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return 2 * x_t * t[:, None, None, None]

    errors = [
        (sample(field, x_0, Y, settings(num_steps=n, solver=solver), NULL) - math.e * x_0).abs().max().item()
        for n in (20, 40)
    ]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


def test_steps_of_heun_and_adams_bashforth_by_hand() -> None:
    """Wrong: slopes would be taken elsewhere or weighted otherwise (v = t^2, two steps; noise 0)."""

    def field(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return (t**2)[:, None, None, None].expand_as(x_t)

    x_0 = torch.zeros(1, 3, 2, 2)
    heun = sample(field, x_0, Y[:1], settings(num_steps=2, solver="heun"), NULL)
    torch.testing.assert_close(heun, torch.full_like(x_0, 0.5 * (0 + 0.25) / 2 + 0.5 * (0.25 + 1) / 2))
    ab2 = sample(field, x_0, Y[:1], settings(num_steps=2, solver="ab2"), NULL)
    torch.testing.assert_close(ab2, torch.full_like(x_0, 0.5 * 0 + 0.5 * (1.5 * 0.25 - 0.5 * 0)))


@pytest.mark.parametrize(("solver", "velocities"), [("euler", 10), ("heun", 20), ("ab2", 10)])
def test_evaluations_are_counted_as_they_are_made(x_0: Tensor, solver: str, velocities: int) -> None:
    """Wrong: a table would print another number of evaluations than a row has used."""
    field = Field()
    sampling = settings(solver=solver, cfg_scale=2.0, cfg_interval=(0.25, 0.7))
    sample(field, x_0, Y, sampling, NULL)
    assert len(field.calls) == velocities
    assert num_function_evaluations(sampling) == sum(size // 3 for _, size in field.calls)
    assert nfe_label(sampling) == f"{velocities}x2"
    assert all((size == 6) == (0.25 <= t <= 0.7) for t, size in field.calls), "guided by its own time"


@pytest.mark.parametrize("solver", SOLVERS)
def test_velocity_is_taken_at_the_evaluation_times(solver: str) -> None:
    """Wrong: fast sampling, which prepares these times, would not know one that differs in its last bit."""
    for num_steps in range(1, 101):
        sampling, taken = settings(solver=solver, num_steps=num_steps), []
        integrate(lambda x_t, t, taken=taken: (taken.append(t), x_t)[1], torch.zeros(1), sampling)
        assert taken == evaluation_times(sampling)


def test_every_solver_of_params_yaml_is_there() -> None:
    """Wrong: a run could name a solver that fails when its training is done."""
    assert set(typing.get_args(Sampling.model_fields["solver"].annotation)) == set(SOLVERS)


def test_unconditional_pass_is_skipped_outside_the_interval(x_0: Tensor) -> None:
    """Wrong: sampling would cost more than the paper's, or guide where the paper does not."""
    field = Field()
    sampling = settings(cfg_scale=2.0, cfg_interval=(0.25, 0.7))
    sample(field, x_0, Y, sampling, NULL)
    assert field.calls == [(t / 10, 6 if 3 <= t <= 7 else 3) for t in range(10)]
    assert num_function_evaluations(sampling) == 15
    assert (nfe_label(sampling), nfe_label(settings())) == ("10x2", "10")


def test_guidance_goes_from_unconditional_to_conditional(x_0: Tensor) -> None:
    """Wrong: v = v_null + w (v_y - v_null) with another w, or away from the label."""
    change = sample(Field(), x_0, Y, settings(cfg_scale=3.0), NULL) - x_0
    expected = -1 + 3.0 * (Y + 1)
    torch.testing.assert_close(change, expected[:, None, None, None].expand_as(change).float())
    partly = sample(Field(), x_0, Y, settings(cfg_scale=3.0, cfg_interval=(0.0, 0.45)), NULL) - x_0
    half = (expected + Y) / 2  # five steps guided (t = 0 to 0.4), five not
    torch.testing.assert_close(partly, half[:, None, None, None].expand_as(partly).float())


def test_scale_1_is_no_guidance(x_0: Tensor) -> None:
    """Wrong: samples without guidance would cost twice as much."""
    field = Field()
    sample(field, x_0, Y, settings(cfg_scale=1.0), NULL)
    assert {size for _, size in field.calls} == {3}


def test_pixels_are_rounded_and_clipped() -> None:
    """Wrong: images would be darker by half a level, or bright spots would wrap around to black."""
    levels = torch.arange(256)
    row = (levels / 127.5 - 1).expand(1, 3, 2, 256)
    assert torch.equal(to_uint8(row), levels.to(torch.uint8)[None, None, :, None].expand(1, 2, 256, 3))
    assert to_uint8(row + 0.4 / 127.5)[0, 0, :255, 0].tolist() == list(range(255)), "rounded to the nearest"
    assert to_uint8(torch.tensor([-3.0, 1.2, 7.0]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 255]
