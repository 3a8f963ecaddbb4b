"""`training:` and `sampling:` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dip.schema.base import Count, CountOr0, Fraction, Name, NonNegative, Positive, Real, Schema, Seed, Text

Decay = Annotated[Real, Field(ge=0, lt=1)]  # EMA decay: the share of the average that stays after a step


class LogitNormal(Schema):
    """t = sigmoid(n), n normal."""

    name: Literal["logit_normal"]
    mean: Real = 0.0
    std: Positive = 1.0


class Uniform(Schema):
    """t uniform in [0, 1]."""

    name: Literal["uniform"]


class TimeShift(Schema):
    """t uniform, then moved towards noise: t / (t + shift (1 - t))."""

    name: Literal["time_shift"]
    shift: Positive


Timesteps = Annotated[LogitNormal | Uniform | TimeShift, Field(discriminator="name")]


class Alignment(Schema):
    """Representation alignment (REPA) of one block's tokens with a frozen DINOv2."""

    weight: Positive = 0.5
    block: Count = 8
    encoder: Text = "vit_base_patch14_dinov2.lvd142m"
    encoder_path: Annotated[Text | None, Field(exclude=True)] = None  # where its weights lie changes no result


class Training(Schema):
    """AdamW, EMA and the objective."""

    init_from: Text | None = None  # file whose backbone the training starts from; a path, $VARIABLES allowed
    epochs: Count
    milestones: tuple[Count, ...] = ()  # epochs whose EMA weights are kept for runs that name them
    batch_size: Count  # global, whatever the number of devices
    learning_rate: Positive
    head_learning_rate_scale: Positive = 1.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0
    warmup_steps: CountOr0 = 0
    schedule: Literal["constant", "cosine"] = "constant"
    gradient_clip: Positive | None = None
    ema_decay: Decay = 0.9999
    # EMA weights of further decays, kept for runs that name them. Left out where there are none: such trainings stay
    # what they were.
    ema_decays: Annotated[tuple[Decay, ...], Field(exclude_if=lambda decays: not decays)] = ()
    label_dropout: Fraction = 0.1
    horizontal_flip: bool = True
    timesteps: Timesteps = LogitNormal(name="logit_normal")
    alignment: Alignment | None = None
    precision: Literal["bf16", "fp32"] = "bf16"
    log_every: Count = 100
    seed: Seed = 0


class Sampling(Schema):
    """From noise to images."""

    solver: Literal["euler", "heun", "ab2"] = "euler"  # ab2: second-order Adams-Bashforth
    num_steps: Count
    cfg_scale: Annotated[Real, Field(ge=1)] = 1.0
    cfg_interval: tuple[Fraction, Fraction] = (0.0, 1.0)  # guidance where t lies in it; t = 0 is noise
    labels: Literal["balanced", "uniform"] = "balanced"
    precision: Literal["bf16", "fp32"] = "bf16"
    seed: Seed = 0


class Checkpoint(Schema):
    """The training whose weights a run samples with, instead of a training of its own."""

    run: Name
    epoch: Count | None = None  # one of its milestones; its last epoch if not given
    ema_decay: Annotated[Decay | None, Field(exclude_if=lambda decay: decay is None)] = None  # its own if not given
