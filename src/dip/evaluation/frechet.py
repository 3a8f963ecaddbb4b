"""Frechet distance between two sets of features, and the streamed statistics it needs.

FID is this distance on pooled features and sFID on spatial features (Heusel et al. 2017; Nash et al. 2021).

Shapes: n = number of images, d = dimension of a feature, r = rank of a covariance.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of features in float64.

    Attributes:
        mean: Shape (d,).
        covariance: Shape (d, d), symmetric, normalised by n - 1 as `np.cov(rowvar=False)`.
        num_samples: n, or None where it is not known, as in the reference files of the ADM release.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    num_samples: int | None = None

    def __post_init__(self) -> None:
        """Bring both arrays to float64 and refuse shapes and values no covariance has.

        Raises:
            ValueError: Shapes that do not belong together, a covariance that is not symmetric, NaN or infinity.
        """
        mean = np.asarray(self.mean, dtype=np.float64)
        covariance = np.asarray(self.covariance, dtype=np.float64)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"expected a mean of shape (d,) and a covariance of shape (d, d), got {mean.shape} and "
                f"{covariance.shape}"
            )
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("mean or covariance contains NaN or infinity: the features behind it were not finite")
        if not np.allclose(covariance, covariance.T, rtol=1e-5, atol=1e-8 * np.abs(covariance).max(initial=0.0)):
            raise ValueError("the covariance is not symmetric: is it a covariance?")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    @classmethod
    def from_features(cls, features: ArrayLike) -> Statistics:
        """Statistics of a feature array.

        The covariance is in float64 throughout. The mean is summed in the type of the features, as ADM's evaluator
        does (`np.mean`): on its test arrays that rounding is 4e-8 of the distance, more than the 1e-8 to which its
        figures can be met. Features in float64 have their mean in float64.

        Args:
            features: Shape (n, d), any real type; n of 2 or more.

        Raises:
            ValueError: Another shape, fewer than 2 rows, NaN or infinity.
        """
        features = checked_features(features)
        running = RunningStatistics(features.shape[1])
        running.update(features)
        return replace(running.result(), mean=np.ascontiguousarray(features).mean(axis=0))


class RunningStatistics:
    """Mean and covariance of features that arrive in batches, in float64.

    Rows are gathered into blocks of fixed size, and blocks are merged by the pairwise update of Chan, Golub and
    LeVeque (1983), which is stable where the textbook sum of squares cancels. Because block limits do not depend
    on the batches, neither does the result: any split of the same rows gives the same bits.

    Args:
        dimension: d.
        block_size: Rows merged at once; memory is about `d * (block_size + 3 * d)` doubles.
    """

    def __init__(self, dimension: int, block_size: int = 2048) -> None:
        self._block = np.empty((block_size, dimension))
        self._filled = 0
        self._num_samples = 0
        self._mean = np.zeros(dimension)
        self._scatter = np.zeros((dimension, dimension))  # sum of outer products of centred rows

    def update(self, features: ArrayLike) -> None:
        """Add the rows of `features`, shape (n, d); n may be 0.

        Raises:
            ValueError: Another dimension, NaN or infinity.
        """
        features = checked_features(features)
        block_size, dimension = self._block.shape
        if features.shape[1] != dimension:
            raise ValueError(f"expected features of dimension {dimension}, got {features.shape[1]}")
        while len(features):
            taken = features[: block_size - self._filled]
            self._block[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            features = features[len(taken) :]
            if self._filled == block_size:
                self._num_samples, self._mean, self._scatter = self._merged()
                self._filled = 0

    def result(self) -> Statistics:
        """Statistics of all rows so far; more may follow.

        Raises:
            ValueError: Fewer than 2 rows.
        """
        num_samples, mean, scatter = self._merged()
        if num_samples < 2:
            raise ValueError(f"a covariance takes at least 2 images, got {num_samples}")
        return Statistics(mean.copy(), scatter / (num_samples - 1), num_samples)

    def _merged(self) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
        """Number of rows, mean and scatter with the gathered rows included."""
        if self._filled == 0:
            return self._num_samples, self._mean, self._scatter
        rows = self._block[: self._filled]
        num_samples = self._num_samples + len(rows)
        rows_mean = rows.mean(axis=0)
        centred = rows - rows_mean
        shift = rows_mean - self._mean
        mean = self._mean + shift * (len(rows) / num_samples)
        scatter = centred.T @ centred  # (d, d)
        scatter += self._scatter
        scatter += np.outer(shift, shift * (self._num_samples * len(rows) / num_samples))
        return num_samples, mean, scatter


def frechet_distance(reference: ArrayLike | Statistics, sample: ArrayLike | Statistics) -> float:
    """Squared Frechet distance between the normal distributions fitted to two sets of features.

    `|m_1 - m_2|^2 + tr(C_1) + tr(C_2) - 2 tr((C_1 C_2)^(1/2))`, in float64. The last term is the sum of the square
    roots of the eigenvalues of the symmetric product `A^T C_2 A` with `C_1 = A A^T`, which are those of `C_1 C_2`.

    Args:
        reference: Features of shape (n, d), any real type, or their statistics.
        sample: Features of shape (m, d), or their statistics; m may differ from n, and either may be below d.

    Returns:
        The distance; symmetric in its arguments, and 0 up to rounding (possibly below 0) where they are equal.

    Raises:
        ValueError: Different dimensions, fewer than 2 rows, NaN or infinity.
    """
    first = reference if isinstance(reference, Statistics) else Statistics.from_features(reference)
    second = sample if isinstance(sample, Statistics) else Statistics.from_features(sample)
    if len(first.mean) != len(second.mean):
        raise ValueError(
            f"reference and sample need features of one dimension, got {len(first.mean)} and {len(second.mean)}: "
            "were they computed by the same feature extractor and layer?"
        )
    difference = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(difference @ difference + traces - 2.0 * _trace_of_root(first, second))


def checked_features(features: ArrayLike) -> NDArray[np.floating]:
    """`features` as a floating-point array of shape (n, d).

    Raises:
        ValueError: Another shape, NaN or infinity; the message counts the images concerned.
    """
    array = np.asarray(features)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"expected features of shape (n, d), got shape {array.shape}")
    if not np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float64)
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"{np.count_nonzero(~finite)} of {len(array)} images have NaN or infinite features (first: row "
            f"{np.argmin(finite)}): check the feature extractor's weights and the images"
        )
    return array


def _trace_of_root(first: Statistics, second: Statistics) -> float:
    """tr((C_1 C_2)^(1/2)), symmetric in its arguments up to rounding."""
    # n rows give a rank of n - 1 at most. With the root taken of the covariance of the lower rank, the product
    # below is as small as that rank, and holds none of the zero eigenvalues whose rounding errors e would each
    # enter as e^(1/2).
    dimension = len(first.mean)
    bounds = [min(dimension, (statistics.num_samples or dimension + 1) - 1) for statistics in (first, second)]
    if bounds[1] < bounds[0]:
        first, second, bounds = second, first, bounds[::-1]
    eigenvalues, vectors = np.linalg.eigh(first.covariance)
    threshold = dimension * np.finfo(np.float64).eps * max(eigenvalues[-1], 0.0)
    kept = eigenvalues > threshold
    kept[: dimension - bounds[0]] = False  # eigh sorts in ascending order
    root = vectors[:, kept] * np.sqrt(eigenvalues[kept])  # (d, r)
    product = root.T @ second.covariance @ root  # (r, r)
    squares = np.linalg.eigvalsh(product)
    return float(np.sqrt(np.clip(squares, 0.0, None)).sum())
