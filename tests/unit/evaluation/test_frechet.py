"""If these fail, FID or sFID differs from the distance the ADM suite computes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from dip.evaluation import RunningStatistics, Statistics, frechet_distance


def correlated(rng, n, d, offset=0.0, scale=1.0):
    """Features with a spread of variances and correlations between all dimensions."""
    mixing = rng.standard_normal((d, d)) * np.geomspace(1, 0.05, d)
    return offset + scale * rng.standard_normal((n, d)) @ mixing


def independent_distance(first, second):
    """The distance by singular values: tr((C_1 C_2)^(1/2)) is the nuclear norm of X_1 X_2^T, centred and scaled.

    No covariance, eigenvalue or matrix root is formed, so ranks below d lose no accuracy.
    """
    first, second = first.astype(np.float64), second.astype(np.float64)
    difference = first.mean(axis=0) - second.mean(axis=0)
    first = (first - first.mean(axis=0)) / np.sqrt(len(first) - 1)
    second = (second - second.mean(axis=0)) / np.sqrt(len(second) - 1)
    # QR keeps the singular values and makes the product no larger than d x d.
    product = np.linalg.qr(first, mode="r") @ np.linalg.qr(second, mode="r").T
    root = np.linalg.svd(product, compute_uv=False).sum()
    return difference @ difference + (first**2).sum() + (second**2).sum() - 2 * root


@pytest.mark.parametrize(
    ("n", "m", "d"), [(400, 400, 40), (1000, 150, 40), (30, 500, 64), (500, 30, 64), (20, 25, 64), (2, 2, 8)]
)
def test_matches_an_independent_computation(n, m, d):
    """Unequal sizes and ranks below d on either side or both."""
    rng = np.random.default_rng(n + m)
    reference, sample = correlated(rng, n, d), correlated(rng, m, d, offset=0.3)
    expected = independent_distance(reference, sample)
    assert frechet_distance(reference, sample) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(sample, reference) == pytest.approx(expected, rel=1e-8)


def test_matches_the_matrix_root_at_full_rank():
    """The definition with `scipy.linalg.sqrtm`, as guided-diffusion writes it."""
    rng = np.random.default_rng(0)
    reference, sample = correlated(rng, 500, 32), correlated(rng, 400, 32)
    covariances = [np.cov(x, rowvar=False) for x in (reference, sample)]
    difference = reference.mean(axis=0) - sample.mean(axis=0)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    expected = difference @ difference + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(reference, sample) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [20, 300])
def test_is_zero_for_identical_features(n):
    """Also where the covariance has no full rank."""
    features = correlated(np.random.default_rng(1), n, 48)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9 * features.var(axis=0).sum())


def test_of_constant_features_is_the_distance_of_the_means():
    """A model that draws one image only has a covariance of zero."""
    assert frechet_distance(np.zeros((5, 3)), np.full((7, 3), 2.0)) == pytest.approx(12.0, rel=1e-12)
    rng = np.random.default_rng(2)
    reference = rng.standard_normal((50, 3))
    expected = reference.mean(axis=0) @ reference.mean(axis=0) + reference.var(axis=0, ddof=1).sum()
    assert frechet_distance(reference, np.zeros((9, 3))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("offset", "scale"), [(1e6, 1.0), (0.0, 1e6), (0.0, 1e-6)])
def test_large_and_small_values(offset, scale):
    """A mean far above the spread must not drown it, nor the scale of the features matter."""
    rng = np.random.default_rng(3)
    reference = correlated(rng, 200, 24, offset, scale)
    sample = correlated(rng, 300, 24, offset, scale)
    assert frechet_distance(reference, sample) == pytest.approx(independent_distance(reference, sample), rel=1e-8)


def test_float32_features_have_their_mean_summed_as_adm_sums_it():
    """With the mean in float64, ADM's figures are met to 4e-8 instead of 1e-8."""
    features = np.random.default_rng(4).random((3000, 16), dtype=np.float32)
    assert np.array_equal(Statistics.from_features(features).mean, np.mean(features, axis=0))
    expected = np.cov(features.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(Statistics.from_features(features).covariance, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_streamed_statistics_equal_numpys(offset):
    """Streaming is exact to rounding, at a mean far above the spread too."""
    features = correlated(np.random.default_rng(5), 1000, 20, offset)
    running = RunningStatistics(20, block_size=128)
    for batch in np.array_split(features, 37):
        running.update(batch)
    result = running.result()
    expected = np.cov(features, rowvar=False)
    tolerance = 1e-12 if offset == 0.0 else 1e-10
    assert np.abs(result.covariance - expected).max() <= tolerance * np.abs(expected).max()
    np.testing.assert_allclose(result.mean, features.mean(axis=0), rtol=0, atol=1e-12 * max(1.0, offset))
    assert result.num_samples == 1000


def test_streamed_statistics_do_not_depend_on_the_batches():
    """Otherwise a metric would change its last digits with the batch size."""
    features = np.random.default_rng(6).standard_normal((700, 9))
    results = []
    for sizes in ([700], [1] * 700, [64] * 10 + [0, 60]):
        running = RunningStatistics(9, block_size=100)
        for stop, size in zip(np.cumsum(sizes), sizes, strict=True):
            running.update(features[stop - size : stop])
        results.append(running.result())
    for other in results[1:]:
        assert np.array_equal(results[0].mean, other.mean)
        assert np.array_equal(results[0].covariance, other.covariance)


def test_a_result_may_be_followed_by_more_rows():
    """Asking for statistics must not change those that follow."""
    features = np.random.default_rng(7).standard_normal((50, 4))
    running = RunningStatistics(4, block_size=16)
    running.update(features[:20])
    early = running.result()
    mean = early.mean.copy()
    running.update(features[20:])
    assert np.array_equal(early.mean, mean)
    np.testing.assert_allclose(running.result().covariance, np.cov(features, rowvar=False), rtol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_refuses_features_that_are_not_finite(value):
    """A broken network must not end in a number."""
    features = np.ones((6, 3), dtype=np.float32)
    features[4, 1] = value
    with pytest.raises(ValueError, match=r"1 of 6 images have NaN or infinite features \(first: row 4\)"):
        frechet_distance(np.ones((6, 3)), features)


def test_refuses_what_is_not_features():
    """Mistaken inputs are named."""
    good = np.random.default_rng(8).standard_normal((6, 3))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        frechet_distance(good, good[:1])
    with pytest.raises(ValueError, match="features of one dimension, got 3 and 2"):
        frechet_distance(good, good[:, :2])
    with pytest.raises(ValueError, match=r"shape \(n, d\)"):
        frechet_distance(good, good[0])
    with pytest.raises(ValueError, match="not symmetric"):
        Statistics(np.zeros(2), np.array([[1.0, 2.0], [3.0, 1.0]]))
    with pytest.raises(ValueError, match=r"a covariance of shape \(d, d\)"):
        Statistics(np.zeros(2), np.eye(3))
    with pytest.raises(ValueError, match="NaN or infinity"):
        Statistics(np.zeros(2), np.full((2, 2), np.nan))
