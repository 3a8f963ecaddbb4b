"""Experiments of the paper that stand outside its tables: one module each, named as in params.yaml (`kind:`).

A module has `run(settings, params)`, which computes the arrays that the figure shows, and `draw(settings, arrays)`,
which makes the figure from them (a `matplotlib.figure.Figure`, drawn in the style of all figures).
"""

from typing import Any

from dip.experiments import gallery, manifold, overfit, theory

EXPERIMENTS: dict[str, Any] = {"theory": theory, "overfit": overfit, "manifold": manifold, "gallery": gallery}
"""Modules by the kind of their figure."""
