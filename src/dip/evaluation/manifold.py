"""Precision and recall by nearest neighbours (Kynkaanniemi et al. 2019), by the rule of the ADM evaluation suite.

Shapes: n = images of one set, m = images of the other, d = dimension of a feature.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from dip.evaluation.frechet import checked_features


def precision_recall(
    reference: ArrayLike,
    sample: ArrayLike,
    k: int = 3,
    *,
    row_block: int = 2048,
    column_block: int = 8192,
    device: str | torch.device = "cpu",
) -> tuple[float, float]:
    """Precision and recall of `sample` against `reference`.

    An image lies in the manifold of a set if for any member of the set their squared distance is at most (`<=`)
    the squared distance of that member to its k-th nearest neighbour in its own set, itself not counted. The
    neighbour is taken as the (k + 1)-th smallest distance of a whole row, so the member itself is the smallest,
    as in guided-diffusion's `ManifoldEstimator`. Distances are squared and in float32.

    Args:
        reference: Features of real images, shape (n, d).
        sample: Features of generated images, shape (m, d); m may differ from n.
        k: Neighbours; 3 in the ADM suite.
        row_block: Rows of a block of distances.
        column_block: Columns of a block; memory on `device` is both sets in float32 and a few blocks.
        device: Where distances are computed.

    Returns:
        precision: Share of `sample` in the manifold of `reference`, in [0, 1].
        recall: Share of `reference` in the manifold of `sample`, in [0, 1].

    Raises:
        ValueError: Different dimensions, k or fewer rows in a set, NaN, infinity, or values so large that their
            squared distances overflow float32.
    """
    arrays = [checked_features(reference), checked_features(sample)]
    check_neighbours(k, reference=len(arrays[0]), sample=len(arrays[1]))
    if arrays[0].shape[1] != arrays[1].shape[1]:
        raise ValueError(
            f"reference and sample need features of one dimension, got {arrays[0].shape[1]} and {arrays[1].shape[1]}"
        )
    blocks = (row_block, column_block)
    real, fake = _shifted(arrays, torch.device(device))
    real_radii = _squared_radii(real, k, blocks)
    fake_radii = _squared_radii(fake, k, blocks)
    fake_inside = torch.zeros(len(fake), dtype=torch.bool, device=device)
    real_inside = torch.zeros(len(real), dtype=torch.bool, device=device)
    for rows in _slices(len(real), row_block):
        for columns in _slices(len(fake), column_block):
            distances = _squared_distances(real[rows], fake[columns])
            fake_inside[columns] |= (distances <= real_radii[rows, None]).any(dim=0)
            real_inside[rows] |= (distances <= fake_radii[None, columns]).any(dim=1)
    return fake_inside.double().mean().item(), real_inside.double().mean().item()


def check_neighbours(k: int, **num_images: int) -> None:
    """Whether sets of images, by name, are large enough for k neighbours of each image.

    Raises:
        ValueError: k is below 1, or a set has k images or fewer.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    for name, count in num_images.items():
        if count <= k:
            raise ValueError(f"{name} has {count} images; k = {k} neighbours take at least {k + 1}")


def _shifted(arrays: list[np.ndarray], device: torch.device) -> list[torch.Tensor]:
    """Both sets in float32, moved by one offset that leaves their distances as they are.

    The expansion |u|^2 - 2 u.v + |v|^2 loses its digits where features are far from 0 and near to each other. The
    offset is the reference's mean rounded to integers: none for features below 0.5, such as most of Inception's,
    and exact ties of integer features stay exact.
    """
    offset = np.round(arrays[0].mean(axis=0, dtype=np.float64)).astype(arrays[0].dtype)
    tensors = []
    for array in arrays:
        tensor = torch.from_numpy(np.subtract(array, offset, dtype=np.result_type(array, np.float32)))
        tensor = tensor.to(device=device, dtype=torch.float32)
        if not torch.isfinite(4.0 * tensor.square().sum(dim=1)).all():
            raise ValueError("features are too large for squared distances in float32: scale them down")
        tensors.append(tensor)
    return tensors


def _squared_radii(features: torch.Tensor, k: int, blocks: tuple[int, int]) -> torch.Tensor:
    """Squared distance of each row to its k-th nearest other row, shape (n,)."""
    radii = []
    for rows in _slices(len(features), blocks[0]):
        smallest = features.new_empty((rows.stop - rows.start, 0))
        for columns in _slices(len(features), blocks[1]):
            distances = _squared_distances(features[rows], features[columns])
            distances = torch.cat([smallest, distances], dim=1)
            smallest = distances.topk(min(k + 1, distances.shape[1]), dim=1, largest=False).values
        radii.append(smallest.amax(dim=1))
    return torch.cat(radii)


def _squared_distances(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Squared distances, shape (n, m), never below 0, between rows of shapes (n, d) and (m, d)."""
    squares = left.square().sum(dim=1)[:, None] + right.square().sum(dim=1)[None, :]
    return torch.addmm(squares, left, right.T, alpha=-2.0).clamp_(min=0.0)


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
