"""The training loop. To resume, run the same command again.

B global batch, C channels, H x W image.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from dip.data.dataset import ImageStore, load_batch
from dip.data.local import nearest_store
from dip.data.order import TrainingOrder
from dip.diffusion.objective import draw
from dip.environment import describe_environment, device_name
from dip.files import check_writable, write_json
from dip.paths import Store
from dip.precision import autocast, dtype_name
from dip.schema import Training, TrainingSpec
from dip.training.checkpoint import StateFolder, save_weights
from dip.training.distributed import Agreement, Place, gradients_shared, join, microbatches
from dip.training.interval import NonFiniteError
from dip.training.optimization import (
    LOSSES,
    Objective,
    gradient_norm,
    losses_of,
    set_learning_rate,
    settle,
    total_loss,
)
from dip.training.prefetch import Prefetch
from dip.training.report import Report, write_curves, write_log
from dip.training.saving import Saver
from dip.training.signals import Request, Signals
from dip.training.state import TrainingState, begin_or_resume


def train(
    spec: TrainingSpec,
    work: Path,
    *,
    save_seconds: float = 600,
    save_steps: int | None = None,
    micro_batch: int | None = None,
    gradient_checkpointing: bool = False,
    speed: str | None = None,
    sample_every: int | None = None,
    data: Store | None = None,
) -> None:
    """Train until the last epoch, or go on from where an earlier call stopped.

    Every process that torchrun or srun started calls this; a result that is there is kept. It depends on none of the
    settings but the spec, and on the number of processes and the size of micro-batches only to rounding. On a GPU no
    two trainings are the same to the bit: FlashAttention and cuDNN add up gradients in no fixed order.

    Args:
        spec: Data, model and optimisation.
        work: Folder of the training's state; `model.safetensors`, `params.json`, `training.jsonl`, `training.csv` and
            milestones stand in it when the training is done. `training.jsonl` grows as it goes.
        save_seconds: Seconds between two checkpoints.
        save_steps: Also save after every so many steps.
        micro_batch: Most images at a time on a device; all of a process's share of the batch if not given.
        gradient_checkpointing: Spend time to save memory.
        speed: As `dip.speed.set_speed` takes it; it changes the result to rounding.
        sample_every: Steps between two grids of samples among the tensorboard events; none if not given.
        data: The prepared dataset, that of the spec's name if not given.

    Raises:
        ValueError: The data are missing or are not those of the spec; the batch does not divide; the weights to start
            from cannot be used; the folder holds another training.
        OSError: The folder cannot be written to, or the disk is full; the last checkpoint stays.
        NonFiniteError: The loss or the gradient is not finite; the last checkpoint stays.
        SystemExit: SIGTERM, SIGINT or SIGHUP came, and a checkpoint of all steps has been written.
    """
    parts = microbatches(spec.training.batch_size, Place.of(os.environ), micro_batch)  # refused before others are met
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(Signals())
        group = stack.enter_context(join())
        if group.from_main((work / "model.safetensors").exists()):  # one word for all, who would wait for each other
            if group.is_main:
                StateFolder(work).clear()  # a kill may have come before it
            return
        training, num_steps = spec.training, spec.num_steps
        data = data or Store.of(spec.dataset_name)
        store = ImageStore(nearest_store(data), spec.dataset)
        check_writable(work / "model.safetensors")
        state = TrainingState.new(spec, group, gradient_checkpointing=gradient_checkpointing, speed=speed)
        folder = StateFolder(work, spec.canonical() + data.manifest.read_text() + (state.encoder_sha256 or ""))
        begin_or_resume(state, spec, folder, group)
        objective = group.parallel(Objective(state.model, state.alignment, training))
        if group.size > 1:
            settle(objective, spec.dataset.image_size, group.device)
        milestones = {epoch * spec.steps_per_epoch: epoch for epoch in training.milestones}
        report = stack.enter_context(Report(spec, state, group, work))
        batches = stack.enter_context(Prefetch(_batches(store, spec, parts, state.step, group.device)))
        saver = stack.enter_context(Saver(folder, every_seconds=save_seconds, every_steps=save_steps, group=group))
        agreement = Agreement(group)
        while state.step < num_steps:
            learning_rate = set_learning_rate(state.optimizer, training, state.step, num_steps)
            losses = torch.zeros(len(LOSSES), device=group.device)
            for number, part in enumerate(parts, start=1):
                x_1, y = next(batches)
                null_class = spec.dataset.num_classes
                path, y = draw(x_1, y, training, step=state.step, null_class=null_class, first=part.start)
                with gradients_shared(objective, last=number == len(parts)):
                    with autocast(training.precision, group.device):
                        part_losses = losses_of(objective, path, y, x_1)
                    (total_loss(part_losses, training) / len(parts)).backward()
                losses += part_losses.detach() / len(parts)
            state.interval.add(losses, gradient_norm(state.optimizer, training.gradient_clip))
            state.optimizer.step()
            state.optimizer.zero_grad(set_to_none=True)
            state.step += 1
            signals.begun()
            state.ema.update(state.model, state.step)
            if state.step % training.log_every == 0 or state.step == num_steps:
                _check_finite(state, saver)
                report.line(learning_rate, waited=batches.take_waited())
            if state.step in milestones:  # before the checkpoint, after which it would not be made any more
                _check_finite(state, saver)
                if group.is_main:
                    _keep(spec, state, work, milestones[state.step], tuple(state.ema.shadows))
            if sample_every is not None and state.step % sample_every == 0:
                report.samples(store.class_names)
            if state.step < num_steps:
                request = Request(agreement(max(signals.request, saver.request())))
                if request or saver.due_by_step(state.step):
                    _check_finite(state, saver)
                    saver.save(state.step, state.state_dict())
                if request > Request.SAVE:
                    saver.wait()
                    group.wait_for_all()
                    signals.obey(request, saver.last_good(), is_main=group.is_main)
            report.advance()
        saver.wait()
        if group.is_main:
            _finish(spec, state, work, group.device)
            folder.clear()


def milestone_path(work: Path, training: Training, epoch: int, ema_decay: float) -> Path:
    """EMA weights kept at the end of an epoch.

    Args:
        work: Folder of the training's state.
        training: Its parameters.
        epoch: One of its milestones; the last one for decays other than the first.
        ema_decay: One of the decays that it follows.
    """
    average = "" if ema_decay == training.ema_decay else f"-ema{ema_decay}"
    return work / f"milestone-{epoch:04d}{average}.safetensors"


def _batches(
    store: ImageStore, spec: TrainingSpec, parts: list[range], first_step: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images and labels of every micro-batch of this process, from a step (counted from 0) to the end."""
    training = spec.training
    order = TrainingOrder(len(store), training.batch_size, training.seed)
    for step in range(first_step, spec.num_steps):
        for part in parts:
            yield load_batch(store, order, step, flip=training.horizontal_flip, device=device, part=part)


def _check_finite(state: TrainingState, saver: Saver) -> None:
    """Refuse to go on with, or to keep, what is not a number; every process must call it."""
    problem = state.interval.problem(state.step)
    if problem is None and not state.is_finite():
        problem = f"the weights are not finite after step {state.step}"
    if problem is not None:
        raise NonFiniteError(
            f"{problem}; {saver.last_good()}. Lower training.learning_rate, set training.gradient_clip or use "
            "precision fp32, then run again"
        )


def _keep(spec: TrainingSpec, state: TrainingState, work: Path, epoch: int, ema_decays: tuple[float, ...]) -> None:
    """Write averaged weights for the runs that name them."""
    for decay in ema_decays:
        kept = milestone_path(work, spec.training, epoch, decay)
        save_weights(kept, state.ema.shadows[decay], spec.canonical())


def _finish(spec: TrainingSpec, state: TrainingState, work: Path, device: torch.device) -> None:
    """Write the result; `model.safetensors`, which says that the training is done, comes last."""
    write_log(work, state.log)
    write_curves(work, state.log)
    content = {
        "run": json.loads(spec.canonical()),
        "num_parameters": sum(p.numel() for p in state.model.parameters()),
        "finished_step": state.step,
        "init_from": state.init_from,
        "encoder_sha256": state.encoder_sha256,
        "device": device_name(device),
        "dtype": dtype_name(spec.training.precision, device),
        **describe_environment(),
    }
    write_json(work / "params.json", content)
    _keep(spec, state, work, spec.training.epochs, spec.training.ema_decays)
    save_weights(work / "model.safetensors", state.ema.shadow, spec.canonical())
