"""What a training step sees, and its loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from dip.diffusion.objective import draw, velocity_loss
from dip.diffusion.timesteps import timesteps
from dip.random import Stream, noise, uniform
from dip.schema import Training

TRAINING = Training(epochs=1, batch_size=8, learning_rate=1.0, label_dropout=0.1)


def images(batch_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    x_1 = torch.randn(batch_size, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x_1, torch.arange(batch_size) % 7


def test_draw_depends_on_seed_step_and_place_alone() -> None:
    """Wrong: a resumed training, or one on another number of GPUs, would see other noise."""
    x_1, y = images(8)
    path, labels = draw(x_1, y, TRAINING, step=5, null_class=7)
    part, part_labels = draw(x_1[:3], y[:3], TRAINING, step=5, null_class=7)
    assert torch.equal(path.t[:3], part.t) and torch.equal(path.x_t[:3], part.x_t)
    assert torch.equal(labels[:3], part_labels)
    for other in (
        draw(x_1, y, TRAINING, step=6, null_class=7)[0],
        draw(x_1, y, TRAINING.model_copy(update={"seed": 1}), step=5, null_class=7)[0],
    ):
        assert not torch.equal(path.t, other.t) and not torch.equal(path.v, other.v)


def test_draws_are_those_of_seed_step_and_place() -> None:
    """Wrong: another version, or the second process of a training, would draw other numbers than the first did."""
    training = TRAINING.model_copy(update={"seed": 3, "label_dropout": 0.5})
    x_1, y = images(8)
    path, labels = draw(x_1, y, training, step=5, null_class=7, first=16)
    places = np.arange(16, 24)
    t = timesteps(training.timesteps, torch.from_numpy(uniform(3, Stream.TIME, 5, places))).float()
    assert torch.equal(path.t, t)
    x_0 = noise(3, Stream.TRAINING_NOISE, [(5, int(place)) for place in places], (3, 4, 4), torch.device("cpu"))
    assert torch.equal(path.v, x_1 - x_0)
    dropped = uniform(3, Stream.LABEL_DROPOUT, 5, places) < 0.5
    assert labels.tolist() == np.where(dropped, 7, y).tolist() and set(dropped.tolist()) == {True, False}
    (whole, _), (first, _) = (draw(x_1, y, training, step=5, null_class=7, **place) for place in ({}, {"first": 0}))
    assert torch.equal(whole.t, first.t), "a batch begins with its first image"


def test_noise_is_normal_and_differs_between_images() -> None:
    """Wrong: images of a batch would share their noise or their time."""
    path, _ = draw(torch.zeros(300, 3, 4, 4), torch.zeros(300, dtype=torch.int64), TRAINING, step=0, null_class=7)
    x_0 = -path.v  # the images are zero
    assert stats.kstest(x_0.numpy().ravel(), "norm").pvalue > 0.01
    assert len(x_0[:, 0, 0, 0].unique()) == 300 and len(path.t.unique()) == 300
    assert path.t.dtype == torch.float32
    torch.testing.assert_close(path.x_t, (1 - path.t)[:, None, None, None] * x_0)


def test_labels_are_dropped_at_their_rate() -> None:
    """Wrong: the unconditional pass of guidance would never be trained, or labels would be lost."""
    x_1, y = images(200)
    dropped = [draw(x_1, y, TRAINING, step=step, null_class=7)[1] for step in range(20)]
    share = np.mean([(labels == 7).float().mean().item() for labels in dropped])
    assert share == pytest.approx(0.1, abs=0.015)
    kept = dropped[0] != 7
    assert torch.equal(dropped[0][kept], y[kept])
    never = TRAINING.model_copy(update={"label_dropout": 0.0})
    assert torch.equal(draw(x_1, y, never, step=0, null_class=7)[1], y)


def test_loss_is_the_mean_square_in_float32() -> None:
    """Wrong: bf16 predictions would be compared in bf16, or summed instead of averaged."""
    v, target = torch.randn(2, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0)).unbind()
    loss = velocity_loss(v.bfloat16(), target)
    assert loss.dtype == torch.float32 and loss.shape == ()
    expected = ((v.bfloat16().double() - target.double()) ** 2).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
