"""Denoising operators of Gaussian data (appendix A): what Theorem A.6 says, computed, corrected and drawn.

Data are N(0, Sigma) with eigenvalues i^-a (assumptions A.3 and A.4): a signal cut into patches, whose eigenvectors are
the cosines of the discrete cosine transform, long waves first. An operator maps what a model sees to its estimate of
epsilon - x_0, and holds the rows of all patches: row block s is the paper's P^(s) (...). DiP sees x_t. DiT sees its own
patch of x_t, and of the other patches the low frequencies alone (A.5, eq. 25).

The formulas are in the paper's notation, where x_0 is the data, epsilon the noise and t = 1 the noise (eq. 6); the
figure is over the code's t (0 is noise). docs/theory.md says where the paper's formulas and these differ:

- Eq. 15 (and C_2 of eq. 33) has lambda_i / t for i > r, where t I gives 1 / t. It also drops -D^-1 E D^-1, which is
  of the same order as I_1 and I_2.
- Eqs. 12, 30 and 31 apply DiT's operator to x_t; the proof derives it for another observation (eq. 25).
- Eq. 11 takes x_t for all that both models see; what DiT sees by A.5 is no part of it, and its error can be smaller.

Shapes: d values of a signal, N patches, P values of a patch, d = N P, r low directions, T times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from scipy.fft import idct

from dip.diffusion.path import paper_time
from dip.reporting.style import COLUMN_INCHES

if TYPE_CHECKING:
    from dip.schema import Params, Theory

Array = np.ndarray[Any, np.dtype[np.floating]]


@dataclass(frozen=True)
class PatchedGaussian:
    """Zero-mean Gaussian signals cut into patches.

    The mean of the paper is left out: it moves the estimates and not the operators.

    Attributes:
        eigenvalues: Of the covariance, above 0, shape (d,).
        eigenvectors: Orthonormal columns u_i, shape (d, d).
        num_low: The first r directions are the low frequencies.
        patch_size: Values of a patch, a divisor of d.
    """

    eigenvalues: Array
    eigenvectors: Array
    num_low: int
    patch_size: int

    @classmethod
    def power_law(cls, settings: Theory) -> PatchedGaussian:
        """Eigenvalues i^-a (A.4), of cosines with i - 1 half waves in the signal."""
        num_values = settings.num_patches * settings.patch_size
        return cls(
            eigenvalues=np.arange(1, num_values + 1) ** -settings.decay,
            eigenvectors=idct(np.eye(num_values), axis=0, norm="ortho"),
            # A share instead of the threshold b of eq. 7, so that there are always low and high directions.
            num_low=min(max(round(settings.low_share * num_values), 1), num_values - 1),
            patch_size=settings.patch_size,
        )

    @property
    def is_low(self) -> np.ndarray:
        """Which directions are low frequencies, bool, shape (d,)."""
        return np.arange(len(self.eigenvalues)) < self.num_low

    @property
    def low(self) -> Array:
        """Sigma_low, shape (d, d)."""
        return self.rotate(np.where(self.is_low, self.eigenvalues, 0))

    @property
    def high(self) -> Array:
        """Sigma_high, shape (d, d)."""
        return self.rotate(np.where(self.is_low, 0, self.eigenvalues))

    def rotate(self, diagonal: Array) -> Array:
        """U diag(diagonal) U^T, shape (d, d)."""
        return (self.eigenvectors * diagonal) @ self.eigenvectors.T

    def within_patches(self, matrix: Array) -> Array:
        """The rows P^(s) matrix P^(s)^T P^(s) of all patches: zero between different patches, shape (d, d)."""
        patch = np.arange(len(matrix)) // self.patch_size
        return np.where(patch[:, None] == patch, matrix, 0)


def dip_operator(data: PatchedGaussian, t: float) -> Array:
    """DiP's A M: the best estimate of epsilon - x_0 from x_t, shape (d, d) (eqs. 13 and 14).

    Args:
        data: Distribution of the data.
        t: The paper's time, in (0, 1].
    """
    covariance, identity = data.low + data.high, np.eye(len(data.eigenvalues))
    observed = (1 - t) ** 2 * covariance + t**2 * identity  # M^-1
    return _divide(t * identity - (1 - t) * covariance, observed)


def dip_gain(data: PatchedGaussian, t: float) -> Array:
    """Eigenvalues of A M: the gain of every direction, shape (d,) (eq. 16)."""
    eigenvalues = data.eigenvalues
    return (t - (1 - t) * eigenvalues) / ((1 - t) ** 2 * eigenvalues + t**2)


def dit_operator(data: PatchedGaussian, t: float) -> Array:
    """DiT's B^ M^: the best estimate of epsilon - x_0 from x^_t, exactly, shape (d, d) (eqs. 14 and 25).

    Args:
        data: Distribution of the data.
        t: The paper's time, in (0, 1].
    """
    low, high, identity = data.low, data.high, np.eye(len(data.eigenvalues))
    own = np.repeat(np.eye(len(identity) // data.patch_size), data.patch_size, axis=1)  # (N, d), rows of P^T P
    own_high = own[:, :, None] * high * own[:, None, :]  # (N, d, d), P^T P Sigma_high P^T P
    observed = (1 - t) ** 2 * (low + own_high) + t**2 * identity  # (N, d, d), M^^-1
    numerator = t * identity - (1 - t) * (low + data.within_patches(high))  # (d, d), rows of B^
    return _divide(numerator.reshape(len(own), data.patch_size, -1), observed).reshape(identity.shape)


def printed_expansion(data: PatchedGaussian, t: float) -> Array:
    """DiT's operator as eq. 15 prints it, shape (d, d); it does not converge to `dit_operator`."""
    gain = np.where(data.is_low, dip_gain(data, t), data.eigenvalues / t)
    return data.rotate(gain) - (1 - t) * data.within_patches(data.high) @ _inverse_of_d(data, t)


def first_order_expansion(data: PatchedGaussian, t: float) -> Array:
    """DiT's operator to first order in the high eigenvalues, shape (d, d): what eq. 15 should be.

    Good where (1 - t)^2 lambda_{r + 1} is far below t^2; towards t = 0 it grows without bound, the exact one does not.
    """
    inverse = _inverse_of_d(data, t)
    without_high = (t * np.eye(len(inverse)) - (1 - t) * data.low) @ inverse
    own_high = data.within_patches(data.high)
    correction = (1 - t) * own_high + (1 - t) ** 2 * data.within_patches(without_high) @ own_high
    return without_high - correction @ inverse  # the two terms are I_1 + I_2 and -C_1 D^-1 E D^-1


def _inverse_of_d(data: PatchedGaussian, t: float) -> Array:
    """D^^-1 of eq. 33: the inverse covariance of the low frequencies with noise."""
    low = np.where(data.is_low, data.eigenvalues, 0)
    return data.rotate(1 / ((1 - t) ** 2 * low + t**2))


def _divide(numerator: Array, symmetric: Array) -> Array:
    """The numerator times the inverse of a symmetric matrix, for stacks of both."""
    return np.linalg.solve(symmetric, numerator.swapaxes(-1, -2)).swapaxes(-1, -2)


def gain(data: PatchedGaussian, operator: Array) -> Array:
    """Response of an operator to each eigenvector along itself, u_i^T operator u_i, shape (d,)."""
    return np.einsum("di,de,ei->i", data.eigenvectors, operator, data.eigenvectors, optimize=True)


def squared_error(data: PatchedGaussian, operator: Array, t: float, *, other_detail: bool) -> Array:
    """Expected squared error of an estimate of epsilon - x_0 along each eigenvector, shape (d,).

    Args:
        data: Distribution of the data.
        operator: What the estimate applies to the observation, shape (d, d).
        t: The paper's time.
        other_detail: Whether the observation has the high frequencies of the other patches (x_t) or not (eq. 25).
    """
    seen = operator if other_detail else data.within_patches(operator)
    turned, turned_seen = (data.eigenvectors.T @ matrix @ data.eigenvectors for matrix in (operator, seen))
    signal = np.hstack([turned[:, : data.num_low], turned_seen[:, data.num_low :]])  # what meets each direction of x_0
    identity = np.eye(len(operator))
    noise_error = ((identity - t * turned) ** 2).sum(axis=1)
    return noise_error + (identity + (1 - t) * signal) ** 2 @ data.eigenvalues


def run(settings: Theory, params: Params) -> dict[str, np.ndarray]:
    """Compute gains and errors of all directions over time.

    Returns:
        t: The code's times, 0 is noise, data (t = 1) left out, where the operators have no value, shape (T,).
        num_low, eigenvalues: r, and lambda_i of shape (d,).
        gain_dip, gain_dit, gain_printed, gain_first_order: u_i^T operator u_i, shape (T, d).
        error_dip, error_dit, error_dit_full: Squared errors, shape (T, d): DiP on x_t, DiT on what A.5 lets it see,
            and DiT's operator on x_t, as eq. 12 has it.
    """
    data = PatchedGaussian.power_law(settings)
    times = np.arange(settings.num_times) / settings.num_times
    rows: dict[str, list[Array]] = {}
    for t in (paper_time(float(time)) for time in times):
        dip, dit = dip_operator(data, t), dit_operator(data, t)
        values = {
            "gain_dip": gain(data, dip),
            "gain_dit": gain(data, dit),
            "gain_printed": gain(data, printed_expansion(data, t)),
            "gain_first_order": gain(data, first_order_expansion(data, t)),
            "error_dip": squared_error(data, dip, t, other_detail=True),
            "error_dit": squared_error(data, dit, t, other_detail=False),
            "error_dit_full": squared_error(data, dit, t, other_detail=True),
        }
        for name, value in values.items():
            rows.setdefault(name, []).append(value)
    fixed = {"t": times, "num_low": np.array(data.num_low), "eigenvalues": data.eigenvalues}
    return fixed | {name: np.stack(values) for name, values in rows.items()}


_DASHED, _DOTTED, _DASH_DOTTED = (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1))
_WIDTH = 1.1
_COLOURS = sns.color_palette("colorblind", 3)
_LEGEND: dict[str, Any] = {"frameon": False, "handlelength": 1.8, "borderpad": 0, "borderaxespad": 0.4}
_TIME_TICKS = (0.1, 0.5, 0.9, 0.99)


def draw(settings: Theory, arrays: dict[str, np.ndarray]) -> Figure:
    """Gains of low (a) and of high directions (b), of expansions (c), and squared errors (d) over the code's t."""
    num_low, num_values = int(arrays["num_low"]), len(arrays["eigenvalues"])
    figure = Figure(figsize=(COLUMN_INCHES, 3.6))
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 0.955))
    axes = figure.subplots(2, 2).flatten()
    _draw_gains(axes[0], arrays, _spread(1, num_low))
    _draw_gains(axes[1], arrays, _spread(num_low + 1, num_values))
    _draw_expansions(axes[2], arrays, num_low + 1)
    _draw_errors(axes[3], arrays, num_low)
    titles = ("(a) Low directions", "(b) High directions", f"(c) DiT's gain, i = {num_low + 1}", "(d) DiT's error")
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title, loc="left", fontweight="bold")
        ax.set_xscale("logit")
        ax.set_xlim(_TIME_TICKS[0], _TIME_TICKS[-1])
        ax.xaxis.set_major_locator(FixedLocator(_TIME_TICKS))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlabel("t (0 noise, 1 data)")
        sns.despine(ax=ax)
    keys = [_key("DiP", "0.2"), _key("DiT", "0.2", _DASHED)]
    figure.legend(handles=keys, ncols=2, loc="upper center", **_LEGEND)
    return figure


def _spread(first: int, last: int) -> list[int]:
    """Up to three directions, evenly spread on a logarithmic axis."""
    return sorted({round(i) for i in np.geomspace(first, last, 3)})


def _key(label: str, colour: Any, line: Any = "-") -> Line2D:
    return Line2D([], [], label=label, color=colour, linestyle=line, linewidth=_WIDTH)


def _draw_gains(ax: Axes, arrays: dict[str, np.ndarray], directions: list[int]) -> None:
    for i, colour in zip(directions, _COLOURS, strict=False):
        for name, line in (("gain_dip", "-"), ("gain_dit", _DASHED)):
            ax.plot(arrays["t"], arrays[name][:, i - 1], color=colour, linestyle=line, linewidth=_WIDTH)
    ax.set_ylim(top=1.45 * ax.get_ylim()[1])  # room for the legend
    ax.set_ylabel("Gain")
    keys = [_key(f"i = {i}", colour) for i, colour in zip(directions, _COLOURS, strict=False)]
    ax.legend(handles=keys, loc="upper left", **_LEGEND)


def _draw_expansions(ax: Axes, arrays: dict[str, np.ndarray], i: int) -> None:
    forms = {"exact": "gain_dit", "first order": "gain_first_order", "eq. 15": "gain_printed"}
    looks = (("0.2", _DASHED), (_COLOURS[0], _DASH_DOTTED), (_COLOURS[1], _DOTTED))
    for (label, name), (colour, line) in zip(forms.items(), looks, strict=True):
        ax.plot(arrays["t"], arrays[name][:, i - 1], label=label, color=colour, linestyle=line, linewidth=_WIDTH)
    top = 1.5 * np.abs(arrays["gain_dit"][:, i - 1]).max()  # the expansions leave the axes where they fail
    ax.set_ylim(-top, top)
    ax.set_ylabel("Gain")
    ax.legend(loc="lower left", **_LEGEND)


def _draw_errors(ax: Axes, arrays: dict[str, np.ndarray], num_low: int) -> None:
    """How far the squared error is above DiP's, of all low and of all high directions."""
    parts = {f"i ≤ {num_low}": slice(None, num_low), f"i > {num_low}": slice(num_low, None)}
    for part, colour in zip(parts.values(), _COLOURS, strict=False):
        dip = arrays["error_dip"][:, part].sum(axis=1)
        for name, line in (("error_dit", _DASHED), ("error_dit_full", _DOTTED)):
            excess = 100 * (arrays[name][:, part].sum(axis=1) / dip - 1)
            ax.plot(arrays["t"], excess, color=colour, linestyle=line, linewidth=_WIDTH)
    ax.axhline(0, color="0.2", linewidth=_WIDTH)
    ax.set_ylim(-10, 30)
    ax.set_ylabel("Error above DiP's (%)")
    keys = [_key(label, colour, _DASHED) for label, colour in zip(parts, _COLOURS, strict=False)]
    ax.legend(handles=[*keys, _key("fed xₜ", "0.2", _DOTTED)], loc="upper left", **_LEGEND)
