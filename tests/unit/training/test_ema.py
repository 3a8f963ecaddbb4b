"""The exponential moving average of weights."""

from __future__ import annotations

import torch
from torch import nn

from dip.training.ema import EMA, period_of


def test_average_against_the_closed_form() -> None:
    """Wrong: decay and 1 - decay would be exchanged, or the average would start at 0."""
    model = nn.Linear(2, 3)
    history = [model.weight.detach().clone().double()]
    ema = EMA(model, 0.9)
    for step in range(1, 6):
        with torch.no_grad():
            model.weight.normal_()
        history.append(model.weight.detach().clone().double())
        ema.update(model, step)
    expected = 0.9**5 * history[0] + sum(0.1 * 0.9 ** (5 - k) * history[k] for k in range(1, 6))
    torch.testing.assert_close(ema.shadow["weight"].double(), expected, rtol=1e-5, atol=1e-6)
    assert not ema.shadow["weight"].requires_grad


def test_average_is_a_copy() -> None:
    """Wrong: the average would be the weights themselves, or loading would tie it to the loaded state."""
    model = nn.Linear(2, 2)
    ema = EMA(model, 0.0)
    with torch.no_grad():
        model.weight.add_(1)
    assert not torch.equal(ema.shadow["weight"], model.weight)
    ema.update(model, 1)
    torch.testing.assert_close(ema.shadow["weight"], model.weight.detach())
    saved = {name: torch.full_like(value, 7.0) for name, value in ema.shadow.items()}
    ema.load({0.0: saved})
    ema.update(model, 2)
    assert (saved["weight"] == 7).all()


def test_values_that_cannot_be_averaged_are_those_of_the_model() -> None:
    """Wrong: a head with a table of indices could not be trained, or would be saved with other indices."""
    model = nn.Linear(2, 2)
    model.register_buffer("order", torch.tensor([0, 1]))
    ema = EMA(model, 0.5, (0.25,))
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
        model.order.copy_(torch.tensor([1, 0]))
    ema.update(model, 1)
    for decay, shadow in ema.shadows.items():
        assert shadow["order"].tolist() == [1, 0] and shadow["order"].dtype == torch.int64
        torch.testing.assert_close(shadow["weight"], start + 1 - decay)


def test_every_decay_has_an_average_of_its_own() -> None:
    """Wrong: a sweep of decays would show one average several times, or its points would depend on each other."""
    model = nn.Linear(2, 2)
    together, apart = EMA(model, 0.9, (0.5, 0.0)), {decay: EMA(model, decay) for decay in (0.9, 0.5, 0.0)}
    for step in range(1, 4):
        with torch.no_grad():
            model.weight.normal_()
        for ema in (together, *apart.values()):
            ema.update(model, step)
    assert together.shadow is together.shadows[0.9]
    for decay, ema in apart.items():
        assert torch.equal(together.shadows[decay]["weight"], ema.shadow["weight"])
    together.restart(model)
    assert all(torch.equal(shadow["weight"], model.weight) for shadow in together.shadows.values())


def test_further_decays_take_a_tenth_of_their_memory_at_a_time() -> None:
    """Wrong: each would cost a training as much as the first, which those it is compared with do not pay."""
    assert [period_of(decay) for decay in (0.0, 0.9, 0.95, 0.98, 0.99, 0.999, 0.99996)] == [1, 1, 2, 5, 10, 10, 10]
    model, every = nn.Linear(1, 1, bias=False), 5
    ema, alone = EMA(model, 0.5, (0.98,)), EMA(model, 0.98)
    for step in range(1, 51):
        before, last = ema.shadows[0.98]["weight"].clone(), alone.shadow["weight"].clone()
        with torch.no_grad():
            model.weight.fill_(step)
        ema.update(model, step)
        alone.update(model, step)
        moved = ema.shadows[0.98]["weight"] != before
        assert moved.item() == (step % every == 0)
        assert alone.shadow["weight"] != last, "the one that is published moves in every step"
    behind = alone.shadow["weight"] - ema.shadows[0.98]["weight"]
    assert behind.abs() < every, "as far apart as the weights of one period"
