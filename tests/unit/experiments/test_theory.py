"""Theorem A.6 holds where it says so, and fails where the module says so.

Shapes: d values of a signal, P values of a patch, n samples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from pydantic import ValidationError

from dip.experiments import theory
from dip.experiments.theory import Array, PatchedGaussian
from dip.reporting.style import COLUMN_INCHES, house_style
from dip.schema import Params, Theory

SETTINGS = Theory(kind="theory", caption="A figure.", num_patches=3, patch_size=4, low_share=0.25, num_times=20)
TIMES = (0.9, 0.5, 0.15)  # the paper's, 1 is noise
NUM_SAMPLES = 20_000


@pytest.fixture
def data() -> PatchedGaussian:
    """Signals of 12 values in 3 patches, the first 3 directions low."""
    return PatchedGaussian.power_law(SETTINGS)


@pytest.fixture
def params(load: Callable[..., Params], content: dict[str, Any]) -> Params:
    """A params.yaml, from which the experiment takes nothing."""
    return load(content)


def draw_samples(data: PatchedGaussian, t: float) -> tuple[Array, Array, Array]:
    """Targets epsilon - x_0 (n, d), x_t (n, d), and what DiT sees for each patch (eq. 25; N, n, d)."""
    generator = np.random.default_rng(0)
    num_values = len(data.eigenvalues)
    scores = generator.standard_normal((NUM_SAMPLES, num_values)) * data.eigenvalues**0.5
    low = np.where(data.is_low, scores, 0) @ data.eigenvectors.T
    high = np.where(data.is_low, 0, scores) @ data.eigenvectors.T
    noise = generator.standard_normal((NUM_SAMPLES, num_values))
    patches = np.arange(num_values) // data.patch_size
    seen = [(1 - t) * (low + high * (patches == patch)) + t * noise for patch in range(patches[-1] + 1)]
    return noise - low - high, (1 - t) * (low + high) + t * noise, np.stack(seen)


def regression_scores(observed: Array, target: Array, operator: Array) -> Array:
    """Least squares' distance from an operator in its own standard errors, one number per coefficient."""
    coefficients, residuals, _, _ = np.linalg.lstsq(observed, target, rcond=None)
    variance = residuals / (len(observed) - observed.shape[1])
    errors = np.sqrt(np.diag(np.linalg.inv(observed.T @ observed))[:, None] * variance)
    return (coefficients - operator.T) / errors


def assert_normal(scores: Array) -> None:
    assert np.abs(scores).max() < 4.5
    assert np.mean(scores**2) == pytest.approx(1, abs=6 * (2 / scores.size) ** 0.5)


@pytest.mark.parametrize("t", TIMES)
def test_dip_operator_is_the_conditional_expectation(data: PatchedGaussian, t: float) -> None:
    """Wrong: eq. 13 would not be E[epsilon - x_0 | x_t]."""
    target, x_t, _ = draw_samples(data, t)
    assert_normal(regression_scores(x_t, target, theory.dip_operator(data, t)))


@pytest.mark.parametrize("t", TIMES)
def test_dit_operator_is_the_conditional_expectation(data: PatchedGaussian, t: float) -> None:
    """Wrong: eq. 14's operator would not be E[epsilon - x_0 | what A.5 lets DiT see], patch by patch."""
    target, _, seen = draw_samples(data, t)
    rows = np.split(theory.dit_operator(data, t), len(seen))
    targets = np.split(target, len(seen), axis=1)
    scores = [regression_scores(*row) for row in zip(seen, targets, rows, strict=True)]
    assert_normal(np.stack(scores))


def test_dit_operator_is_not_the_expectation_given_x_t(data: PatchedGaussian) -> None:
    """Wrong: the check has no power, or eq. 12 is right as printed (it applies DiT's operator to x_t)."""
    target, x_t, _ = draw_samples(data, 0.15)
    assert np.abs(regression_scores(x_t, target, theory.dit_operator(data, 0.15))).max() > 20


@pytest.mark.parametrize("t", TIMES)
def test_gains_of_dip_are_its_eigenvalues(data: PatchedGaussian, t: float) -> None:
    """Wrong: eq. 16."""
    operator, gains = theory.dip_operator(data, t), theory.dip_gain(data, t)
    np.testing.assert_allclose(operator, data.rotate(gains), atol=1e-12)
    np.testing.assert_allclose(theory.gain(data, operator), gains, atol=1e-12)


def slopes(data: PatchedGaussian, t: float, approximate: Callable[[PatchedGaussian, float], Array]) -> Array:
    """Powers of the high eigenvalues with which an approximation's relative error goes, for each factor of ten."""
    errors = []
    for factor in (1e-1, 1e-2, 1e-3, 1e-4):
        scaled = replace(data, eigenvalues=data.eigenvalues * np.where(data.is_low, 1, factor))
        exact = theory.dit_operator(scaled, t)
        errors.append(np.linalg.norm(approximate(scaled, t) - exact, 2) / np.linalg.norm(exact, 2))
    return -np.diff(np.log10(errors))


def with_one_over_t(data: PatchedGaussian, t: float) -> Array:
    """Eq. 15 with 1 / t in the place of lambda_i / t."""
    missing = data.rotate(np.where(data.is_low, 0, (1 - data.eigenvalues) / t))
    return theory.printed_expansion(data, t) + missing


@pytest.mark.parametrize("t", TIMES)
def test_orders_of_the_expansions(data: PatchedGaussian, t: float) -> None:
    """Wrong: the corrected expansion is not of first order, or eq. 15 needs another correction than ours."""
    np.testing.assert_allclose(slopes(data, t, theory.printed_expansion), 0, atol=0.05)
    np.testing.assert_allclose(slopes(data, t, with_one_over_t)[1:], 1, atol=0.1)
    np.testing.assert_allclose(slopes(data, t, theory.first_order_expansion)[1:], 2, atol=0.1)


def test_printed_terms_are_the_paper_s(data: PatchedGaussian) -> None:
    """Wrong: what the figure calls eq. 15 is not what the paper prints; here it is summed term by term."""
    t, r, u, eigenvalues = 0.5, data.num_low, data.eigenvectors, data.eigenvalues
    own = np.diag([0.0] * 4 + [1.0] * 4 + [0.0] * 4)  # the second patch
    d = (1 - t) ** 2 * eigenvalues * data.is_low + t**2
    expected = np.zeros((12, 12))
    for i in range(12):
        first = (t - (1 - t) * eigenvalues[i]) / d[i] if i < r else eigenvalues[i] / t
        expected += first * np.outer(own @ u[:, i], u[:, i])
        for j in range(12) if i >= r else ():
            coupling = u[:, i] @ own @ u[:, j]
            expected -= (1 - t) * eigenvalues[i] / d[j] * coupling * np.outer(own @ u[:, i], u[:, j])
    np.testing.assert_allclose(theory.printed_expansion(data, t)[4:8], expected[4:8], atol=1e-12)


def test_squared_errors_are_those_of_samples(data: PatchedGaussian) -> None:
    """Wrong: the figure's errors; each is a mean over samples, checked to five of its standard errors."""
    t = 0.15
    target, x_t, seen = draw_samples(data, t)
    dip, dit = theory.dip_operator(data, t), theory.dit_operator(data, t)
    own_views = [view @ rows.T for view, rows in zip(seen, np.split(dit, len(seen)), strict=True)]
    cases = [
        (x_t @ dip.T, theory.squared_error(data, dip, t, other_detail=True)),
        (np.hstack(own_views), theory.squared_error(data, dit, t, other_detail=False)),
        (x_t @ dit.T, theory.squared_error(data, dit, t, other_detail=True)),
    ]
    for estimate, expected in cases:
        squares = ((target - estimate) @ data.eigenvectors) ** 2
        scores = (squares.mean(axis=0) - expected) / (squares.std(axis=0) / NUM_SAMPLES**0.5)
        assert np.abs(scores).max() < 5


@pytest.mark.slow
def test_errors_of_run(params: Params) -> None:
    """Wrong: docs/theory.md on eq. 11, or DiP is not the best that x_t allows."""
    arrays = theory.run(Theory(kind="theory", caption="A figure."), params)
    dip, hidden, seen = (arrays[name].sum(axis=1) for name in ("error_dip", "error_dit", "error_dit_full"))
    assert (dip <= seen + 1e-9).all()
    assert (hidden < dip)[100:].all(), "what DiT is given by A.5 is worth more than the detail that it lacks"
    spectrum, noise = arrays["eigenvalues"], 1 - arrays["t"][:, None]
    posterior = spectrum / ((1 - noise) ** 2 * spectrum + noise**2)
    np.testing.assert_allclose(arrays["error_dip"], posterior, rtol=1e-8)


def test_times_are_the_code_s(params: Params) -> None:
    """Wrong: the figure's axis is reversed; at noise (t = 0) x_t is epsilon, so that every gain is 1."""
    arrays = theory.run(SETTINGS, params)
    assert arrays["t"][0] == 0 and arrays["t"][-1] == pytest.approx(0.95)
    for name in ("gain_dip", "gain_dit", "gain_first_order"):
        np.testing.assert_allclose(arrays[name][0], 1)
        assert np.isfinite(arrays[name]).all()


@pytest.mark.parametrize("num_patches", [2, 8])
def test_figure(params: Params, num_patches: int) -> None:
    """Wrong: the figure is of another width than a column, or fails where there are few directions."""
    settings = SETTINGS.model_copy(update={"num_patches": num_patches, "patch_size": 2})
    with house_style():
        figure = theory.draw(settings, theory.run(settings, params))
        FigureCanvasAgg(figure).draw()
    assert figure.get_size_inches()[0] == COLUMN_INCHES
    assert len(figure.axes) == 4


@pytest.mark.parametrize(
    "setting",
    [{"decay": 1.0}, {"num_patches": 1}, {"patch_size": 1}, {"low_share": 1.0}, {"low_share": 0.0}, {"num_times": 1}],
)
def test_bad_settings(setting: dict[str, float]) -> None:
    """Wrong: a signal of one patch, or without low or high directions, ends in a traceback."""
    with pytest.raises(ValidationError):
        Theory.model_validate({"kind": "theory", "caption": "A figure."} | setting)
