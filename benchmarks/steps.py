"""A model with random weights and a training step, for the benchmarks that time them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch

from dip.diffusion.objective import draw
from dip.environment import pick_device
from dip.model import DiP, build_model
from dip.precision import autocast
from dip.speed import set_speed
from dip.training.ema import EMA
from dip.training.optimization import Objective, gradient_norm, losses_of, make_optimizer, total_loss

if TYPE_CHECKING:
    from dip.schema import Run

Module = TypeVar("Module", bound=torch.nn.Module)


class TrainingStep(NamedTuple):
    """A training step, and the part of it that makes gradients."""

    whole: Callable[[], None]
    passes: Callable[[], None]


def model_of(run: Run) -> DiP:
    """The run's model with random weights."""
    torch.manual_seed(0)
    with torch.device(pick_device()):
        return randomize(build_model(run.model, run.dataset.image_size, run.dataset.num_classes))


def randomize(model: Module) -> Module:
    """Give all weights but norms and biases random values that keep the scale of activations; returns the model."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model


def with_backbone(run: Run, hidden_size: int, depth: int, num_heads: int) -> Run:
    """The run with a backbone of another size."""
    sizes = {"hidden_size": hidden_size, "depth": depth, "num_heads": num_heads}
    return run.model_copy(update={"model": run.model.model_copy(update=sizes)})


def training_step(
    run: Run, speed: str, batch_size: int, *, prepare: Callable[[DiP], None] | None = None
) -> TrainingStep:
    """Forward and backward pass, gradient norm, optimiser and one average, on random images and without alignment.

    Args:
        run: Model and training.
        speed: As `dip.speed.set_speed` takes it.
        batch_size: Images of a step.
        prepare: What is done to the model then.
    """
    device, size = pick_device(), run.dataset.image_size
    training = run.training.model_copy(update={"alignment": None, "batch_size": batch_size, "ema_decays": ()})
    x_1 = torch.rand(batch_size, 3, size, size, device=device) * 2 - 1
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    model = model_of(run)
    set_speed(model, speed)
    if prepare is not None:
        prepare(model)
    objective, optimizer = Objective(model, None, training), make_optimizer(model, training)
    ema = EMA(model, training.ema_decay)

    def passes() -> None:
        path, y = draw(x_1, labels, training, step=0, null_class=run.dataset.num_classes)
        with autocast(training.precision, device):
            losses = losses_of(objective, path, y, x_1)
        total_loss(losses, training).backward()

    def whole() -> None:
        passes()
        gradient_norm(optimizer, training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.update(model, step=1)

    return TrainingStep(whole, passes)
