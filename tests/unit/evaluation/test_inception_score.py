"""If these fail, the Inception score is not that of the ADM suite."""

from __future__ import annotations

import numpy as np
import pytest

from dip.evaluation import inception_score


def random_probabilities(n, num_classes, seed=0):
    logits = 2 * np.random.default_rng(seed).standard_normal((n, num_classes))
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


def score_by_definition(rows):
    """exp(H(y) - H(y|x)), by the entropies instead of the divergence."""
    marginal = rows.mean(axis=0)
    entropy = -(marginal * np.log(marginal)).sum()
    return np.exp(entropy + (rows * np.log(rows)).sum(axis=1).mean())


@pytest.mark.parametrize(("n", "chunk_size", "sizes"), [(90, 100, [90]), (100, 25, [25] * 4), (110, 50, [50, 50, 10])])
def test_chunks_are_consecutive_and_the_last_counts_in_full(n, chunk_size, sizes):
    """A partial chunk weighted by its size, or dropped, gives another number."""
    rows = random_probabilities(n, 7)
    parts = np.split(rows, np.cumsum(sizes)[:-1])
    expected = np.mean([score_by_definition(part) for part in parts])
    assert inception_score(rows, chunk_size) == pytest.approx(expected, rel=1e-12)
    assert inception_score(rows.astype(np.float32), chunk_size) == pytest.approx(expected, rel=1e-5)


def test_order_matters():
    """Class-sorted samples score low in chunks: order is part of the protocol."""
    rows = np.repeat(np.eye(10), 20, axis=0)
    assert inception_score(rows, chunk_size=20) == pytest.approx(1.0)
    assert inception_score(rows[np.arange(200).reshape(10, 20).T.ravel()], chunk_size=20) == pytest.approx(10.0)


def test_extremes():
    """One-hot rows over all classes give K (0 log 0 is 0), equal rows give 1."""
    assert inception_score(np.eye(12)) == pytest.approx(12.0, rel=1e-12)
    assert inception_score(np.full((8, 5), 0.2)) == pytest.approx(1.0, rel=1e-12)


def test_refuses_what_is_not_probabilities():
    """Logits or NaN must not end in a number."""
    rows = random_probabilities(6, 3)
    with pytest.raises(ValueError, match="logits without softmax"):
        inception_score(10 * rows)
    rows[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        inception_score(rows)
    with pytest.raises(ValueError, match=r"shape \(n, K\)"):
        inception_score(np.empty((0, 3)))
    with pytest.raises(ValueError, match="chunk_size must be at least 1"):
        inception_score(np.eye(3), chunk_size=0)
