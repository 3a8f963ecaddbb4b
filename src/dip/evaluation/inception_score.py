"""Inception score with the chunks of the ADM evaluation suite.

Shapes: n = number of images, K = number of classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def inception_score(probabilities: ArrayLike, chunk_size: int = 5000) -> float:
    """Inception score (Salimans et al. 2016): the mean over chunks of `exp(E[KL(p(y|x) || p(y))])`.

    Chunks are consecutive rows in file order, and a last partial chunk counts as much as a full one: the rule of
    the ADM suite (`evaluate_inception_score` of guided-diffusion). The order of the images therefore matters.

    Args:
        probabilities: Class probabilities, shape (n, K), in [0, 1], each row summing to 1; computed in float64.
        chunk_size: Images per chunk.

    Returns:
        The score, from 1 to K.

    Raises:
        ValueError: Another shape, no rows, NaN, values outside [0, 1], rows that do not sum to 1, or a chunk size
            below 1.
    """
    rows = np.asarray(probabilities)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"expected class probabilities of shape (n, K), got shape {rows.shape}")
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}")
    scores = [_chunk_score(rows[start : start + chunk_size]) for start in range(0, len(rows), chunk_size)]
    return float(np.mean(scores))


def _chunk_score(chunk: np.ndarray) -> float:
    chunk = chunk.astype(np.float64)
    sums = chunk.sum(axis=1)
    if not ((chunk >= 0.0).all() and np.allclose(sums, 1.0, rtol=0.0, atol=1e-3)):  # NaN fails both
        raise ValueError(
            "expected class probabilities: values in [0, 1] and rows that sum to 1; NaN, or logits without softmax?"
        )
    marginal = chunk.mean(axis=0, keepdims=True)  # (1, K)
    ratio = np.divide(chunk, marginal, out=np.ones_like(chunk), where=chunk > 0.0)  # 0 log 0 = 0
    return float(np.exp((chunk * np.log(ratio)).sum(axis=1).mean()))
