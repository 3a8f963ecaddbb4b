"""If these fail, precision and recall do not follow the ADM suite's rule."""

from __future__ import annotations

import numpy as np
import pytest

from dip.evaluation import precision_recall


def independent_precision_recall(reference, sample, k):
    """By the definition, in float64, over differences instead of the expanded square."""
    reference, sample = reference.astype(np.float64), sample.astype(np.float64)

    def distances(a, b):
        return ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)

    def radii(a):
        own = distances(a, a)
        np.fill_diagonal(own, -1.0)  # itself comes first, whatever else is at distance 0
        return np.sort(own, axis=1)[:, k].clip(min=0)

    between = distances(reference, sample)
    precision = (between <= radii(reference)[:, None]).any(axis=0).mean()
    recall = (between <= radii(sample)[None, :]).any(axis=1).mean()
    return precision, recall


@pytest.mark.parametrize(("n", "m", "k"), [(200, 200, 3), (150, 60, 3), (40, 170, 5), (4, 4, 3), (80, 80, 1)])
def test_matches_an_independent_computation(n, m, k):
    """Unequal sizes, several k, and the smallest sets there are neighbours in."""
    rng = np.random.default_rng(n * m + k)
    reference, sample = rng.standard_normal((n, 5)), 1.2 * rng.standard_normal((m, 5)) + 0.3
    assert precision_recall(reference, sample, k) == independent_precision_recall(reference, sample, k)


def test_blocks_do_not_change_the_result():
    """Blocks bound the memory; a radius taken over one block instead of a row would be larger."""
    rng = np.random.default_rng(0)
    reference, sample = rng.standard_normal((130, 4)), rng.standard_normal((97, 4)) + 0.5
    whole = precision_recall(reference, sample)
    for row_block, column_block in [(1, 1000), (1000, 1), (7, 2), (32, 50)]:
        assert precision_recall(reference, sample, row_block=row_block, column_block=column_block) == whole


def test_identical_and_disjoint_sets():
    """Copies lie in the manifold; sets far apart do not."""
    features = np.random.default_rng(1).standard_normal((60, 8)).astype(np.float32)
    assert precision_recall(features, features) == (1.0, 1.0)
    assert precision_recall(features, features + 100) == (0.0, 0.0)


def test_a_distance_equal_to_the_radius_counts():
    """The rule is `<=`: on a line of integers every third neighbour is at an exact tie."""
    reference = np.arange(0.0, 20.0, 1.0)[:, None] + 1000.0
    sample = np.array([[1022.0], [1023.0], [1500.0], [1600.0]])
    # The last reference point, 1019, has its third neighbour at 1016: 1022 is as far away, 1023 is farther.
    assert precision_recall(reference, sample)[0] == 0.25


def test_a_collapsed_model_has_precision_but_no_recall():
    """Precision alone cannot see collapse; recall must."""
    rng = np.random.default_rng(2)
    reference = rng.standard_normal((200, 6))
    sample = reference[:1] + 1e-3 * rng.standard_normal((50, 6))
    precision, recall = precision_recall(reference, sample)
    assert precision == 1.0
    assert recall <= 0.01


@pytest.mark.parametrize(("offset", "scale"), [(1e3, 1.0), (-1e5, 1.0), (0.0, 1e8), (0.0, 1e-8)])
def test_large_and_small_values(offset, scale):
    """Squares of features far from 0 would lose their differences in float32."""
    rng = np.random.default_rng(3)
    reference = scale * rng.standard_normal((120, 6)) + offset
    sample = scale * (rng.standard_normal((90, 6)) + 0.5) + offset
    assert precision_recall(reference, sample) == independent_precision_recall(reference, sample, 3)


def test_refuses_impossible_input():
    """Mistaken inputs are named."""
    features = np.random.default_rng(4).standard_normal((10, 3))
    with pytest.raises(ValueError, match="sample has 3 images; k = 3 neighbours take at least 4"):
        precision_recall(features, features[:3])
    with pytest.raises(ValueError, match="features of one dimension, got 3 and 2"):
        precision_recall(features, features[:, :2])
    with pytest.raises(ValueError, match="k must be at least 1"):
        precision_recall(features, features, k=0)
    with pytest.raises(ValueError, match="too large"):
        precision_recall(features, 1e20 * features)
    features[2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        precision_recall(features, features)
