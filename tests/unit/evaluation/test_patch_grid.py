"""The grid of the patches in samples: what is found, and what is not taken for one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from dip.evaluation import patch_grid as module
from dip.evaluation.patch_grid import patch_grid

Images = NDArray[np.uint8]
P = 8


@pytest.fixture(scope="module")
def images(crops) -> Images:
    """1200 crops of 32 x 32 pixels, in whose contents nothing has a period of 8."""
    return crops.images[:1200]


def to_uint8(values: NDArray[np.float64]) -> Images:
    return np.clip(values.round(), 0, 255).astype(np.uint8)


def lines(images: Images) -> Images:
    """The first row and column of every patch is darker."""
    marked = images.astype(np.float64)
    marked[:, ::P] -= 8
    marked[:, :, ::P] -= 8
    return to_uint8(marked)


def offsets(images: Images) -> Images:
    """Every patch has its own brightness."""
    offset = np.random.default_rng(0).normal(0, 8, (len(images), 4, 1, 4, 1, 1))
    return to_uint8((images.reshape(-1, 4, P, 4, P, 3) + offset).reshape(images.shape))


def wave(images: Images) -> Images:
    """One soft wave lies over every patch."""
    return to_uint8(images + 8 * np.sin(2 * np.pi * np.arange(32) / P)[:, None, None])


def softened(images: Images) -> Images:
    """Pixels on both sides of a border are averaged."""
    soft = images.astype(np.float64)
    for axis in (1, 2):
        view = np.moveaxis(soft, axis, 0)
        mean = (view[P - 1 : -1 : P] + view[P::P]) / 2
        view[P - 1 : -1 : P], view[P::P] = mean, mean
    return to_uint8(soft)


@pytest.mark.parametrize(
    ("change", "seams", "period"),
    [
        (lines, (1.05, 3), (1.1, 9)),
        (offsets, (1.1, 3), (0.8, 1.1)),
        (wave, (0.9, 1.1), (1.2, 9)),
        (softened, (-1, 0.5), (0.9, 1.1)),
        (lambda images: images[:, ::-1], (0.95, 1.05), (0.95, 1.05)),
        (lambda images: to_uint8(gaussian_filter(images.astype(np.float64), (0, 1, 1, 0))), (0.9, 1.1), (0.8, 1.25)),
        (lambda images: to_uint8(images * 0.5 + 64), (0.95, 1.05), (0.95, 1.05)),
    ],
    ids=["lines", "offsets", "wave", "softened", "mirrored", "blurred", "faint"],
)
def test_a_grid_is_found_and_nothing_else(
    images: Images, change: Callable[[Images], Images], seams: tuple[float, float], period: tuple[float, float]
) -> None:
    """Wrong: samples with a visible grid would pass, or blurred or pale ones without would be said to have one."""
    found = patch_grid(change(images[:600]), images[600:], P)
    assert found is not None and found["patch_size"] == P
    assert seams[0] < found["seams"] < seams[1]
    assert period[0] < found["period"] < period[1]


def test_real_images_have_no_grid(images: Images) -> None:
    """Wrong: 1 would not be the value of samples that are like the reference."""
    same = patch_grid(images, images, P)
    assert same == {"patch_size": P, "seams": 1.0, "period": 1.0}
    for size in (4, 8, 16):
        other = patch_grid(images[:600], images[600:], size)
        assert other is not None
        assert other["seams"] == pytest.approx(1, abs=0.1) and other["period"] == pytest.approx(1, abs=0.1)


def test_period_is_the_energy_at_the_patch_frequency(images: Images) -> None:
    """Wrong: the documentation would call something else the spectral energy at multiples of 1 / P."""
    energies = module._energies(images[:100], P)
    spectrum = np.abs(np.fft.fft2(images[:100].astype(np.float64), axes=(1, 2)) / 32**2) ** 2
    at_grid = spectrum[:, :: 32 // P, :: 32 // P].sum(axis=(1, 2)) - spectrum[:, 0, 0]
    assert energies.repeated == pytest.approx(at_grid.mean(axis=1).sum(), rel=1e-4)


def test_large_images_keep_their_digits(images: Images) -> None:
    """Wrong: squares of millions of pixels, summed in float32, would lose the third digit, and each machine another."""
    large = images[:64].repeat(8, axis=1).repeat(8, axis=2)  # 256 x 256
    values = large.astype(np.float64)
    steps = [np.diff(values, axis=axis).swapaxes(0, axis) ** 2 for axis in (1, 2)]
    at_border = np.arange(1, 256) % 16 == 0
    inside, across = (64 * sum(step[kind].mean() for step in steps) for kind in (~at_border, at_border))
    energies = module._energies(large, 16)
    assert (energies.inside, energies.across) == pytest.approx((inside, across), rel=1e-6)
    patches = values.reshape(64, 16, 16, 16, 16, 3)
    assert energies.within == pytest.approx(64 * patches.var(axis=(2, 4)).mean(), rel=1e-4)


def test_a_spread_of_many_images_is_taken(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: 50,000 samples would take minutes, or only those of the first classes would be looked at."""
    monkeypatch.setattr(module, "MOST_IMAGES", 300)
    assert patch_grid(images, images[::-1], P) == patch_grid(images[::4], images[::-1][::4], P)


@pytest.mark.parametrize("size", [1, 32])
def test_images_without_a_grid_have_no_energy_at_it(images: Images, size: int) -> None:
    """Wrong: the metrics of a model with one patch, or with patches of a pixel, would end in a division by zero."""
    assert patch_grid(images, images, size) is None


def test_images_without_detail(images: Images) -> None:
    """Wrong: a collapsed model would end in NaN, which is not JSON."""
    assert patch_grid(np.full_like(images, 7), images, P) is None
    blocks = images[:, ::P, ::P].repeat(P, axis=1).repeat(P, axis=2)  # only between patches
    assert patch_grid(blocks, images, P) is None and patch_grid(images, blocks, P) is None
