"""The direction of t."""

from __future__ import annotations

import pytest
import torch

from dip.diffusion.path import paper_time, sample_path


@pytest.fixture
def ends() -> tuple[torch.Tensor, torch.Tensor]:
    """Noise and images, in double precision."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 5, 3, 4, 4, generator=generator, dtype=torch.float64).unbind())


def test_t_runs_from_noise_to_data(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Wrong: training and sampling would count t in opposite directions."""
    x_0, x_1 = ends
    torch.testing.assert_close(sample_path(x_0, x_1, torch.zeros(5).double()).x_t, x_0)
    torch.testing.assert_close(sample_path(x_0, x_1, torch.ones(5).double()).x_t, x_1)
    path = sample_path(x_0, x_1, torch.tensor([0, 0.25, 0.5, 0.75, 1]).double())
    torch.testing.assert_close(path.x_t[1], 0.25 * x_1[1] + 0.75 * x_0[1])


def test_velocity_is_the_derivative_of_the_path(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Wrong: the sampler would integrate something else than the network learns."""
    t, step = torch.linspace(0.1, 0.8, 5).double(), 1e-4
    first, second = sample_path(*ends, t), sample_path(*ends, t + step)
    torch.testing.assert_close((second.x_t - first.x_t) / step, first.v, rtol=1e-8, atol=1e-8)


def test_paper_counts_the_other_way(ends: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Wrong: the paper's equation 6, x_t = (1 - t) x + t e with e the noise, would not hold in its own time."""
    x_0, x_1 = ends
    t = torch.rand(5, generator=torch.Generator().manual_seed(1)).double()
    paper = (1 - paper_time(t))[:, None, None, None] * x_1 + paper_time(t)[:, None, None, None] * x_0
    torch.testing.assert_close(sample_path(x_0, x_1, t).x_t, paper)
    assert paper_time(paper_time(0.3)) == pytest.approx(0.3)
