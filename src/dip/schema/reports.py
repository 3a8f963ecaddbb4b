"""`studies:`, `tables:` and `figures:` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dip.schema.base import AsPairs, Count, Fraction, Name, Real, Schema, Seed, Text
from dip.schema.experiments import Manifold, Overfit, Shown, Theory


class Study(Schema):
    """One scale of the same experiments."""

    title: Text
    description: Text


class Table(Schema):
    """Sections of a table, each a list of runs in the order of their rows."""

    caption: Text
    layout: Literal["table1", "table2", "table3", "cost"]  # whose columns it has
    published: bool = True  # whether the paper's own rows stand above the measured ones
    sections: Annotated[dict[Text, tuple[Name, ...]], Field(min_length=1), AsPairs]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(run for runs in self.sections.values() for run in runs)


class Panel(Schema):
    """One pair of axes: a quantity of the runs against another."""

    title: Text
    x: Literal["head.depth", "head.width", "patch_size", "cfg_scale", "num_steps", "ema_decay"]
    y: Literal["fid", "sfid", "inception_score", "precision", "recall", "seams", "period", "gflops", "latency_seconds"]
    series: Annotated[dict[Text, Annotated[tuple[Name, ...], Field(min_length=1)]], Field(min_length=1), AsPairs]


class Comparison(Shown):
    """A figure that compares runs, panel by panel (Figure 10)."""

    kind: Literal["comparison"]
    panels: Annotated[tuple[Panel, ...], Field(min_length=1)]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run for panel in self.panels for runs in panel.series.values() for run in runs))


class Gallery(Shown):
    """Samples of chosen classes (Figures 7, 9 and 13-30)."""

    kind: Literal["gallery"]
    run: Name  # whose weights and solver it takes
    # Name by number, in order.
    classes: Annotated[dict[Annotated[int, Field(ge=0)], Text], Field(min_length=1), AsPairs]
    cfg_scale: Annotated[Real, Field(ge=1)] = 4.0
    cfg_interval: tuple[Fraction, Fraction] = (0.0, 1.0)
    num_samples: Count = 8  # of each class
    columns: Count = 8
    seed: Seed = 0

    @property
    def runs(self) -> tuple[str, ...]:
        return (self.run,)


Figure = Annotated[Comparison | Theory | Overfit | Manifold | Gallery, Field(discriminator="kind")]
