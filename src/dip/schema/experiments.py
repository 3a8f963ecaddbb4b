"""Figures of experiments that need no run: they compute, or train, what they show (`figures:` of params.yaml)."""

from __future__ import annotations

from typing import Literal

from dip.schema.base import Schema, Text


class Experiment(Schema):
    """What all experiments have."""

    caption: Text

    @property
    def runs(self) -> tuple[str, ...]:
        """Runs whose parameters the experiment takes; their results are not needed."""
        return ()


class Theory(Experiment):
    """Denoising operators of Gaussian data (appendix A)."""

    kind: Literal["theory"]


class Overfit(Experiment):
    """One photograph learned by heart (Figure 3)."""

    kind: Literal["overfit"]


class Manifold(Experiment):
    """A head that sees patches or the whole image, on a toy manifold (appendix D, Figure 12)."""

    kind: Literal["manifold"]
