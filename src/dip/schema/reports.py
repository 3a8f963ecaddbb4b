"""`studies:`, `tables:` and `figures:` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dip.schema.base import Name, Schema, Text
from dip.schema.experiments import Manifold, Overfit, Theory


class Study(Schema):
    """One scale of the same experiments."""

    title: Text
    description: Text


class Table(Schema):
    """Sections of a table, each a list of runs in the order of their rows."""

    caption: Text
    layout: Literal["table1", "table2", "table3"]  # whose columns it has
    published: bool = True  # whether the paper's own rows stand above the measured ones
    sections: Annotated[dict[Text, tuple[Name, ...]], Field(min_length=1)]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(run for runs in self.sections.values() for run in runs)


class Panel(Schema):
    """One pair of axes: a quantity of the runs against another."""

    title: Text
    x: Literal["head.depth", "head.width", "patch_size"]
    y: Literal["fid", "sfid", "gflops", "latency_seconds"]
    series: Annotated[dict[Text, Annotated[tuple[Name, ...], Field(min_length=1)]], Field(min_length=1)]


class Comparison(Schema):
    """A figure that compares runs, panel by panel (Figure 10)."""

    kind: Literal["comparison"]
    caption: Text
    panels: Annotated[tuple[Panel, ...], Field(min_length=1)]

    @property
    def runs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(run for panel in self.panels for runs in panel.series.values() for run in runs))


Figure = Annotated[Comparison | Theory | Overfit | Manifold, Field(discriminator="kind")]
