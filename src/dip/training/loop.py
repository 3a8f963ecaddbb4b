"""The training loop. To resume, run the same command again.

B batch, C channels, H x W image.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from dip.data.dataset import ImageStore, TrainingOrder, load_batch
from dip.diffusion.objective import draw, velocity_loss
from dip.environment import describe_environment, device_name, pick_device
from dip.files import atomic_copy, atomic_write, write_json
from dip.model import build_model
from dip.paths import RunFolder, Store
from dip.progress import Progress
from dip.schema import Training, TrainingSpec
from dip.training.checkpoint import StateFolder, save_weights
from dip.training.ema import EMA

_log = logging.getLogger(__name__)


class NonFiniteLossError(RuntimeError):
    """The loss is not a number any more; the message says where and what was kept."""


@dataclass
class TrainingState:
    """All that a training goes on from."""

    model: nn.Module
    alignment: nn.Module | None
    optimizer: AdamW
    ema: EMA
    step: int = 0
    device_hours: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "alignment": self.alignment.trainable_state() if self.alignment is not None else {},  # type: ignore[operator]
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadow,
            "step": self.step,
            "device_hours": self.device_hours,
            "log": self.log,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        if self.alignment is not None:
            self.alignment.load_state_dict(state["alignment"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load(state["ema"])
        self.step, self.device_hours, self.log = state["step"], state["device_hours"], state["log"]


def train(spec: TrainingSpec, work: Path, *, save_seconds: float = 600, data: Store | None = None) -> None:
    """Train until the last epoch, or go on from where an earlier call stopped.

    Args:
        spec: Data, model and optimisation.
        work: Folder of the training's state; `model.safetensors`, `params.json`, `training.jsonl` and milestones
            stand in it when the training is done.
        save_seconds: Seconds between two checkpoints.
        data: The prepared dataset, that of the spec's name if not given.

    Raises:
        ValueError: The data are missing or are not those of the spec.
        NonFiniteLossError: The loss is not finite; the last checkpoint stays.
    """
    device = pick_device()
    store = ImageStore(data or Store.of(spec.dataset_name))
    if len(store) != spec.dataset.num_images:
        raise ValueError(
            f"data/{spec.dataset_name} has {len(store)} images, params.yaml says {spec.dataset.num_images}; "
            "prepare it again"
        )
    training = spec.training
    state = _new_state(spec, device)
    checkpoints = StateFolder(work)
    if found := checkpoints.load():
        state.load_state_dict(found[1])
        _log.info("resuming at step %d of %d", state.step, spec.num_steps)
    order = TrainingOrder(len(store), training.batch_size, training.seed)
    milestones = {epoch * spec.steps_per_epoch: epoch for epoch in training.milestones}
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=training.precision == "bf16")
    last_save = interval_start = time.monotonic()
    interval_losses: list[Tensor] = []
    with Progress("train", total=spec.num_steps, initial=state.step, unit="step") as progress:
        while state.step < spec.num_steps:
            x_1, y = load_batch(store, order, state.step, flip=training.horizontal_flip, device=device)
            path, y = draw(x_1, y, training, step=state.step, null_class=spec.dataset.num_classes)
            learning_rate = _set_learning_rate(state.optimizer, training, state.step, spec.num_steps)
            with autocast:
                losses = _losses(state, path, y, x_1, training)
            total = losses[0] + (training.alignment.weight * losses[1] if training.alignment else 0)
            total.backward()
            if training.gradient_clip is not None:
                parameters = (p for group in state.optimizer.param_groups for p in group["params"])
                nn.utils.clip_grad_norm_(parameters, training.gradient_clip)
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.ema.update(state.model)
            state.step += 1
            interval_losses.append(losses.detach())
            logged = state.step % training.log_every == 0 or state.step == spec.num_steps
            if logged:
                now = time.monotonic()
                _log_interval(state, spec, interval_losses, now - interval_start, learning_rate, checkpoints)
                progress.note(f"loss {state.log[-1]['loss']:.4f}")
                interval_start, interval_losses = now, []
            if state.step in milestones:  # before the checkpoint, after which it would not be made any more
                _check_weights(state, checkpoints)
                save_weights(milestone_path(work, milestones[state.step]), state.ema.shadow, spec.canonical())
            if logged and time.monotonic() - last_save >= save_seconds and state.step < spec.num_steps:
                _check_weights(state, checkpoints)
                checkpoints.save(state.step, state.state_dict())
                last_save = time.monotonic()
            progress.advance()
    _check_weights(state, checkpoints)
    _finish(spec, state, work, device)


def milestone_path(work: Path, epoch: int) -> Path:
    """EMA weights kept at the end of an epoch."""
    return work / f"milestone-{epoch:04d}.safetensors"


def publish(work: Path, target: RunFolder) -> None:
    """Copy a finished training to its run folder; `model.safetensors`, the file others wait for, comes last."""
    for destination in (target.params, target.training_log, target.model):
        atomic_copy(work / destination.name, destination)


def _new_state(spec: TrainingSpec, device: torch.device) -> TrainingState:
    training = spec.training
    torch.manual_seed(training.seed)
    model = build_model(spec.model, spec.dataset.image_size, spec.dataset.num_classes).to(device)
    alignment = None
    if training.alignment is not None:
        from dip.diffusion.alignment import RepresentationAlignment

        grid = spec.dataset.image_size // spec.model.patch_size
        alignment = RepresentationAlignment(training.alignment, hidden_size=spec.model.hidden_size, grid=grid).to(
            device
        )
    is_head = {id(p) for part in ("head", "intermediate") for p in _parameters(model, part)}
    backbone = [p for p in model.parameters() if id(p) not in is_head]
    if alignment is not None:
        backbone += [p for p in alignment.parameters() if p.requires_grad]
    head = [p for p in model.parameters() if id(p) in is_head]
    groups = [
        {"params": backbone, "scale": 1.0},
        {"params": head, "scale": training.head_learning_rate_scale},
    ]
    optimizer = AdamW(
        [group for group in groups if group["params"]],
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        fused=True,
    )
    model.train()
    return TrainingState(model, alignment, optimizer, EMA(model, training.ema_decay))


def _parameters(model: nn.Module, part: str) -> list[nn.Parameter]:
    module = getattr(model, part, None)
    return list(module.parameters()) if isinstance(module, nn.Module) else []


def _losses(state: TrainingState, path: Any, y: Tensor, x_1: Tensor, training: Training) -> Tensor:
    """Velocity loss and alignment loss (0 without alignment), shape (2,)."""
    if state.alignment is None or training.alignment is None:
        loss = velocity_loss(state.model(path.x_t, path.t, y), path.v)
        return torch.stack([loss, loss.new_zeros(())])
    v, tokens = state.model(path.x_t, path.t, y, tokens_after=training.alignment.block)
    return torch.stack([velocity_loss(v, path.v), state.alignment(tokens, x_1).float()])


def _set_learning_rate(optimizer: AdamW, training: Training, step: int, num_steps: int) -> float:
    """Linear warm-up, then constant or half a cosine down to zero; the head's group is scaled."""
    factor = min(1.0, (step + 1) / training.warmup_steps) if training.warmup_steps else 1.0
    if training.schedule == "cosine" and step >= training.warmup_steps:
        done = (step - training.warmup_steps) / max(1, num_steps - training.warmup_steps)
        factor = 0.5 * (1 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = training.learning_rate * group["scale"] * factor
    return training.learning_rate * factor


def _log_interval(
    state: TrainingState,
    spec: TrainingSpec,
    losses: list[Tensor],
    seconds: float,
    learning_rate: float,
    checkpoints: StateFolder,
) -> None:
    """Add one line to the log; the only place that waits for the device."""
    values = torch.stack(losses).double().cpu()  # (steps, 2)
    if not torch.isfinite(values).all():
        first = state.step - len(values) + int((~torch.isfinite(values).all(dim=1)).nonzero()[0]) + 1
        raise _not_finite(f"the loss is not finite at step {first}", checkpoints)
    state.device_hours += seconds * _num_devices() / 3600
    velocity, alignment = values.mean(dim=0).tolist()
    weight = spec.training.alignment.weight if spec.training.alignment else 0.0
    record = {
        "step": state.step,
        "epoch": state.step / spec.steps_per_epoch,
        "loss": velocity + weight * alignment,
        "velocity_loss": velocity,
        **({"alignment_loss": alignment} if spec.training.alignment else {}),
        "learning_rate": learning_rate,
        "images_per_second": len(losses) * spec.training.batch_size / seconds,
        "gpu_hours": state.device_hours,
        "device": device_name(pick_device()),
    }
    state.log.append(record)


def _check_weights(state: TrainingState, checkpoints: StateFolder) -> None:
    """Refuse to keep weights that a step with a finite loss but a gradient that is not has spoilt."""
    if not all(torch.isfinite(value).all() for value in state.ema.shadow.values()):
        raise _not_finite(f"the weights are not finite after step {state.step}", checkpoints)


def _not_finite(what: str, checkpoints: StateFolder) -> NonFiniteLossError:
    kept = checkpoints.load()
    where = f"the last good checkpoint is of step {kept[0]} in {checkpoints.folder}" if kept else "no checkpoint yet"
    return NonFiniteLossError(
        f"{what}; {where}. Lower training.learning_rate, set training.gradient_clip or use precision fp32, then "
        "run again"
    )


def _num_devices() -> int:
    """GPUs in use, or threads on a CPU."""
    return 1 if torch.cuda.is_available() else torch.get_num_threads()


def _finish(spec: TrainingSpec, state: TrainingState, work: Path, device: torch.device) -> None:
    with atomic_write(work / "training.jsonl") as file:
        file.writelines(json.dumps(record) + "\n" for record in state.log)
    content = {
        "run": json.loads(spec.canonical()),
        "num_parameters": sum(p.numel() for p in state.model.parameters()),
        "finished_step": state.step,
        "device": device_name(device),
        **describe_environment(),
    }
    write_json(work / "params.json", content)
    save_weights(work / "model.safetensors", state.ema.shadow, spec.canonical())
    for path in work.glob("state-*"):
        os.unlink(path)  # noqa: PTH108 - also what a damaged checkpoint left
