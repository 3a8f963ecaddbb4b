"""One step of the optimisation: what AdamW is given, the learning rate and the clipping of gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from trainings import changed

from dip.schema import Alignment, TrainingSpec
from dip.training.distributed import Group, Place
from dip.training.optimization import Objective, gradient_norm, set_learning_rate, total_loss
from dip.training.state import TrainingState

GROUP = Group(Place(), torch.device("cpu"))


def test_learning_rate_warms_up_falls_and_is_scaled_for_the_head(workplace: Path, spec: TrainingSpec) -> None:
    """Wrong: the head would learn at the backbone's rate, or the schedule would not end at zero."""
    training = changed(spec, warmup_steps=4, schedule="cosine", head_learning_rate_scale=4.0).training
    state = TrainingState.new(changed(spec, head_learning_rate_scale=4.0), GROUP)
    head = set(map(id, state.model.head_parameters()))
    assert [{id(p) in head for p in group["params"]} for group in state.optimizer.param_groups] == [{False}, {True}]
    rates = [set_learning_rate(state.optimizer, training, step, 16) for step in range(16)]
    assert rates[:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
    assert rates[4] == pytest.approx(0.01) and rates[10] == pytest.approx(0.005) and 0 < rates[15] < 2e-4
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert [group["lr"] for group in state.optimizer.param_groups] == pytest.approx([rates[15], 4 * rates[15]])
    constant = changed(spec, warmup_steps=4).training
    rates = [set_learning_rate(state.optimizer, constant, step, 16) for step in (1, 3, 4, 5, 15)]
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01, 0.01])


def test_adamw_has_the_betas_and_the_weight_decay_of_the_settings(spec: TrainingSpec) -> None:
    """Wrong: every run would be trained with PyTorch's own, whatever params.yaml says."""
    state = TrainingState.new(changed(spec, betas=(0.8, 0.9), weight_decay=0.3), GROUP)
    groups = state.optimizer.param_groups
    assert [(group["betas"], group["weight_decay"]) for group in groups] == [((0.8, 0.9), 0.3)] * 2


def test_alignment_is_added_with_its_weight(spec: TrainingSpec) -> None:
    """Wrong: tokens would not be aligned, or be turned away from the encoder's features."""
    aligned = changed(spec, alignment=Alignment(block=1, weight=0.25)).training
    assert total_loss(torch.tensor([3.0, -0.5]), aligned) == 3.0 - 0.25 * 0.5
    assert total_loss(torch.tensor([3.0, -0.5]), spec.training) == 3.0


def test_objective_aligns_the_tokens_of_its_block_with_the_clean_images(spec: TrainingSpec) -> None:
    """Wrong: another block, or the noisy images, would be compared with the encoder's features."""
    seen: list[tuple[Tensor, Tensor]] = []

    class Seeing(nn.Module):
        def forward(self, tokens: Tensor, images: Tensor) -> Tensor:
            seen.append((tokens, images))
            return torch.tensor(-0.5)

    model = TrainingState.new(spec, GROUP).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    x_t, v, x_1 = torch.randn(3, 2, 3, 8, 8)
    t, y = torch.tensor([0.2, 0.7]), torch.tensor([0, 1])
    for block in (1, 2):
        training = changed(spec, alignment=Alignment(block=block)).training
        losses = Objective(model, Seeing(), training)(x_t, t, y, v, x_1)
        prediction, tokens = model(x_t, t, y, tokens_after=block)
        torch.testing.assert_close(losses, torch.tensor([(prediction - v).square().mean().item(), -0.5]))
        torch.testing.assert_close(seen[-1][0], tokens)
        assert seen[-1][1] is x_1
    assert not torch.allclose(seen[0][0], seen[1][0])
    plain = Objective(model, None, spec.training)(x_t, t, y, v, x_1)
    torch.testing.assert_close(plain, torch.stack([losses[0], torch.tensor(0.0)]))


def test_gradient_is_clipped_and_its_norm_is_that_before() -> None:
    """Wrong: a step would be as long as its gradient, or the log would show the same norm at every step."""
    weight = nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3.0)
    optimizer = AdamW([weight])
    assert gradient_norm(optimizer, None) == 6 == weight.grad.norm()
    assert gradient_norm(optimizer, 1.5) == 6
    assert weight.grad.norm().item() == pytest.approx(1.5)
