"""The probability path, and the one place that fixes the direction of t.

In code t = 0 is noise and t = 1 is data, as in DDT: x_t = t x_1 + (1 - t) x_0 with x_0 ~ N(0, I) and x_1 an image
in [-1, 1]. The paper (eq. 6) counts the other way; `paper_time` converts.

B batch, C channels, H x W image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

Time = TypeVar("Time", float, Tensor)


@dataclass(frozen=True)
class PathSample:
    """A point on the path of each image.

    Attributes:
        x_t: Noisy image, shape (B, C, H, W).
        t: Time, 0 is noise and 1 is data, shape (B,).
        v: Velocity x_1 - x_0, the target of the network, shape (B, C, H, W).
    """

    x_t: Tensor
    t: Tensor
    v: Tensor


def sample_path(x_0: Tensor, x_1: Tensor, t: Tensor) -> PathSample:
    """Interpolate between noise and data (paper eq. 6 with t reversed).

    Args:
        x_0: Noise, shape (B, C, H, W).
        x_1: Images in [-1, 1], shape (B, C, H, W).
        t: Times in [0, 1], shape (B,).
    """
    weight = t[:, None, None, None]
    return PathSample(x_t=weight * x_1 + (1 - weight) * x_0, t=t, v=x_1 - x_0)


def paper_time(t: Time) -> Time:
    """The paper's t (1 is noise) from the code's t (1 is data), and back."""
    return 1 - t
