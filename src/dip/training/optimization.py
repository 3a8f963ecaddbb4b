"""One step of the optimisation: objective, learning rate and gradient norm.

B batch, C channels, H x W image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from dip.diffusion.objective import velocity_loss
from dip.diffusion.path import PathSample
from dip.model import DiP

if TYPE_CHECKING:
    from dip.schema import Training


LOSSES = ("velocity_loss", "alignment_loss")
"""What an `Objective` returns, in this order; their names in the log."""


class Objective(nn.Module):
    """The losses of a batch as one module, all of whose trainable parameters take part in every call.

    Args:
        model: The model.
        alignment: `RepresentationAlignment` if tokens are aligned.
        training: Which block is aligned.
    """

    def __init__(self, model: DiP, alignment: nn.Module | None, training: Training) -> None:
        super().__init__()
        self.model, self.alignment = model, alignment
        self._block = training.alignment.block if training.alignment else None

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor, v: Tensor, x_1: Tensor) -> Tensor:
        """`LOSSES`, shape (2,), float32; the alignment loss is 0 without alignment.

        Args:
            x_t: Noisy images, shape (B, C, H, W).
            t: Times, shape (B,).
            y: Labels, shape (B,).
            v: Velocities to predict, shape (B, C, H, W).
            x_1: Clean images, shape (B, C, H, W).
        """
        if self.alignment is None:
            loss = velocity_loss(self.model(x_t, t, y), v)
            return torch.stack([loss, loss.new_zeros(())])
        prediction, tokens = self.model(x_t, t, y, tokens_after=self._block)
        return torch.stack([velocity_loss(prediction, v), self.alignment(tokens, x_1).float()])


def losses_of(objective: nn.Module, path: PathSample, y: Tensor, x_1: Tensor) -> Tensor:
    """`LOSSES` of a batch, shape (2,); `objective` is an `Objective`, or its wrapper for several processes."""
    return objective(path.x_t, path.t, y, path.v, x_1)


def loss_weights(training: Training) -> dict[str, float]:
    """Weights of those `LOSSES` that a training has; the log has no others."""
    return {"velocity_loss": 1.0} | ({"alignment_loss": training.alignment.weight} if training.alignment else {})


def total_loss(losses: Tensor, training: Training) -> Tensor:
    """What is minimised, a scalar, from the `LOSSES` of shape (2,)."""
    by_name = dict(zip(LOSSES, losses.unbind(), strict=True))
    return torch.stack([weight * by_name[name] for name, weight in loss_weights(training).items()]).sum()


def settle(objective: nn.Module, image_size: int, device: torch.device) -> None:
    """Make a first pass and drop its gradients.

    After its first pass DistributedDataParallel groups the gradients anew, and a sum over more than two processes
    depends on the groups. With this pass before the first step of every call, an interrupted training adds up in the
    same order as one that was not interrupted.
    """
    image = torch.zeros(1, 3, image_size, image_size, device=device)  # (B, C, H, W)
    t, y = torch.zeros(1, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    objective(image, t, y, image, image).sum().backward()
    objective.zero_grad(set_to_none=True)


def make_optimizer(model: DiP, training: Training, others: Sequence[nn.Parameter] = ()) -> AdamW:
    """AdamW with the head's parameters in a group of their own, whose learning rate `set_learning_rate` scales.

    Args:
        model: The model.
        training: Learning rates, betas and weight decay.
        others: Further parameters, which learn as the backbone does.
    """
    head = list(model.head_parameters())
    in_head = {id(parameter) for parameter in head}
    backbone = [parameter for parameter in model.parameters() if id(parameter) not in in_head]
    groups = [
        {"params": [*backbone, *others], "scale": 1.0},
        {"params": head, "scale": training.head_learning_rate_scale},
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )


def gradient_norm(optimizer: AdamW, clip: float | None) -> Tensor:
    """Norm of the whole gradient, before it is clipped to `clip`; a scalar on the device, for which nobody waits."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if clip is not None:
        return nn.utils.clip_grad_norm_(parameters, clip)
    return nn.utils.get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])


def set_learning_rate(optimizer: AdamW, training: Training, step: int, num_steps: int) -> float:
    """Linear warm-up, then constant or half a cosine down to zero; the head's group is scaled."""
    factor = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    if training.schedule == "cosine" and step >= training.warmup_steps:
        done = (step - training.warmup_steps) / max(1, num_steps - training.warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate * group["scale"] * factor
    return training.learning_rate * factor
