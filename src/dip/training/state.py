"""All that a training goes on from, and how it begins."""

from __future__ import annotations

import functools
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import AdamW
from torch.utils.checkpoint import checkpoint

from dip.model import DiP, build_model
from dip.paths import given_path
from dip.schema import TrainingSpec
from dip.speed import set_speed
from dip.training.checkpoint import StateFolder
from dip.training.distributed import Group
from dip.training.ema import EMA
from dip.training.initialization import load_backbone
from dip.training.interval import Interval
from dip.training.optimization import make_optimizer

if TYPE_CHECKING:
    from dip.diffusion.alignment import RepresentationAlignment

_log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """All that a training goes on from; random numbers are not in it, because they depend on seed and step alone."""

    model: DiP
    alignment: RepresentationAlignment | None
    optimizer: AdamW
    ema: EMA
    interval: Interval
    step: int = 0
    device_hours: float = 0.0
    log: list[dict[str, Any]] = field(default_factory=list)
    init_from: dict[str, Any] | None = None  # what was taken from the weights that it started from

    @classmethod
    def new(
        cls, spec: TrainingSpec, group: Group, *, gradient_checkpointing: bool = False, speed: str | None = None
    ) -> TrainingState:
        """The state before the first step, with random weights from the spec's seed.

        Args:
            spec: Data, model and optimisation.
            group: The processes of the training.
            gradient_checkpointing: Keep only what goes into every block and the head, and compute the rest again for
                the gradient: less memory, more time, the same numbers.
            speed: As `dip.speed.set_speed` takes it.
        """
        training = spec.training
        torch.manual_seed(training.seed)
        model = build_model(spec.model, spec.dataset.image_size, spec.dataset.num_classes).to(group.device)
        alignment = None
        if training.alignment is not None:
            from dip.diffusion.alignment import RepresentationAlignment

            grid = spec.dataset.image_size // spec.model.patch_size
            alignment = RepresentationAlignment(training.alignment, hidden_size=spec.model.hidden_size, grid=grid)
            alignment.to(group.device)
        if gradient_checkpointing:
            _checkpoint_gradients(model)
        set_speed(model, speed)
        projector = [p for p in alignment.parameters() if p.requires_grad] if alignment is not None else []
        optimizer = make_optimizer(model, training, projector)
        model.train()
        return cls(model, alignment, optimizer, EMA(model, training.ema_decay, training.ema_decays), Interval(group))

    @property
    def encoder_sha256(self) -> str | None:
        """Checksum of the weights that the model is aligned with, None without alignment."""
        return self.alignment.encoder.weights_sha256 if self.alignment is not None else None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds; every process must call it."""
        return {
            "model": self.model.state_dict(),
            "alignment": self.alignment.trainable_state() if self.alignment is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadows,
            "interval": self.interval.state_dict(),
            "step": self.step,
            "device_hours": self.device_hours,
            "log": self.log,
            "init_from": self.init_from,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.model.load_state_dict(state["model"])
        if self.alignment is not None:
            self.alignment.load_state_dict(state["alignment"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load(state["ema"])
        self.interval.load_state_dict(state["interval"])
        self.step, self.device_hours, self.log = state["step"], state["device_hours"], state["log"]
        self.init_from = state["init_from"]

    def start_from(self, path: Path) -> None:
        """Take the backbone of a checkpoint, for the weights and for their averages."""
        report = load_backbone(self.model, path)
        self.ema.restart(self.model)
        self.init_from = asdict(report)
        _log.info("%s", report)

    def is_finite(self) -> bool:
        """Whether all averaged weights are numbers."""
        averages = (value for shadow in self.ema.shadows.values() for value in shadow.values())
        return all(bool(torch.isfinite(value).all()) for value in averages)


def begin_or_resume(state: TrainingState, spec: TrainingSpec, folder: StateFolder, group: Group) -> None:
    """Load the newest intact checkpoint into a new state, or else the weights that the spec names, if any.

    The main process chooses the checkpoint, so that all processes go on from the same.

    Raises:
        ValueError: The checkpoint is not one of this training, or the weights to start from cannot be used.
    """
    found = (folder.find() or 0) if group.is_main else 0
    if step := group.from_main(found):
        state.load_state_dict(folder.read(step))
        if group.is_main:
            _log.info("resuming at step %d of %d", state.step, spec.num_steps)
    elif spec.training.init_from is not None:
        state.start_from(given_path(spec.training.init_from, "training.init_from", "the weights to start from"))


def _checkpoint_gradients(model: DiP) -> None:
    """Have every block and the head compute their inner values again in the backward pass (Chen et al. 2016)."""
    for module in (*model.blocks, model.intermediate, model.head):
        if module is not None:
            again = functools.partial(checkpoint, module.forward, use_reentrant=False, preserve_rng_state=False)
            module.forward = again
