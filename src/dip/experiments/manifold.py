"""A head that sees its own patch or the whole image, on a toy manifold (appendix D, Figures 11 and 12).

The paper shows that a head with patch-level input fits a branching manifold and one with image-level input blurs it,
and says no more about the experiment. So this is an experiment of its own, in which K points of the plane play the
patches of an image.

Shapes: B batch, K points of an image, D hidden size, V inputs (patch, image), R seeds, G segments of the tree.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import seaborn as sns
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from dip.diffusion.objective import velocity_loss
from dip.diffusion.path import sample_path
from dip.diffusion.sampler import sample
from dip.diffusion.timesteps import timesteps
from dip.model.backbone import DiTBlock, initialize_block
from dip.model.layers import RotaryEmbedding2D, TimestepEmbedder, head_size_of
from dip.progress import Progress
from dip.random import Stream, noise
from dip.reporting.style import COLUMN_INCHES, MARKERS
from dip.schema import LogitNormal, Manifold, Params, Sampling

# ASSUMPTION: all points of an image lie on one of three limbs of a fractal tree. Which limb is the global structure,
# which ties the patches together; where on its fine branches a point lies is the detail, independent of the others.
# ASSUMPTION: the model is DiP in small. DiT blocks turn the noisy points into tokens, and an MLP makes the velocity of
# each point from its token and from its own noisy point (patch-level) or from all noisy points of the image, its own
# first and the others in cyclic order (image-level). The image-level MLP has narrower hidden layers, so that it has no
# more parameters. Path, loss and solver are those of the images.
INPUTS = ("patch", "image")
NUM_LIMBS = 3
_PLANE = 2  # coordinates of a point
_HEAD_LAYERS = 3
_TIMES = LogitNormal(name="logit_normal")
_TITLES = {"patch": "(a) patch-level input", "image": "(b) image-level input"}
_MEASURES = {"off": "Sample to tree", "missed": "Tree to sample"}


def run(settings: Manifold, params: Params) -> dict[str, NDArray[Any]]:
    """Train and sample the model with either input, once for every seed.

    Args:
        settings: The figure of params.yaml.
        params: Not used: the toy needs no run.

    Returns:
        points: Generated points of the first seed, float32, shape (V, num_images, K, 2).
        off: Mean distance of generated points to the tree, shape (V, R).
        missed: Mean distance of places on the tree, evenly spread, to the nearest generated point, shape (V, R).
        together: Share of generated images whose points are all nearest to one limb, shape (V, R).
        missed_by_truth: What `missed` is for as many points of the tree itself, shape (R,).
        num_parameters: Shape (V,).

    Raises:
        ValueError: A training diverged.
    """
    tree = grow_tree(settings.branchings)
    torch_tree = torch.from_numpy(tree).float()
    measured: dict[str, list[list[float]]] = {"off": [], "missed": [], "together": []}
    points, num_parameters = [], []
    total = len(INPUTS) * settings.num_seeds * settings.num_steps
    with Progress("toy manifold", total=total, unit="step") as progress:
        for kind in INPUTS:
            for values in measured.values():
                values.append([])
            for seed in range(settings.num_seeds):
                model = _train(settings, kind, settings.first_seed + seed, torch_tree, progress)
                drawn = _sample(model, settings, settings.first_seed + seed)
                if not np.isfinite(drawn).all():
                    raise ValueError(
                        f"points drawn with {kind}-level input are not finite; lower the figure's learning_rate.{kind}"
                    )
                for name, value in measure(drawn, tree).items():
                    measured[name][-1].append(value)
                if seed == 0:
                    points.append(drawn)
                    num_parameters.append(sum(p.numel() for p in model.parameters()))
    truth = []
    for seed in range(settings.num_seeds):
        generator = torch.Generator().manual_seed(settings.first_seed + seed)
        fresh = draw_images(torch_tree, settings.num_images, settings.num_points, generator)
        truth.append(measure(_as_points(fresh), tree)["missed"])
    return {
        "points": np.stack(points),
        **{name: np.array(values) for name, values in measured.items()},
        "missed_by_truth": np.array(truth),
        "num_parameters": np.array(num_parameters),
    }


def grow_tree(branchings: int) -> NDArray[np.float64]:
    """Segments of a tree with three limbs, each of which forks `branchings` times.

    Returns:
        Both ends of every segment, shape (limbs, G, 2, 2), within about 2.3 of the origin.
    """
    shrink, spread = 0.62, np.deg2rad(32)
    limbs = []
    for limb in range(NUM_LIMBS):
        angle = np.pi / 2 + limb * 2 * np.pi / NUM_LIMBS
        growing = [(np.zeros(_PLANE), angle)]
        segments = []
        for level in range(branchings + 1):
            length = shrink**level
            tips = [(start, start + length * np.array([np.cos(a), np.sin(a)]), a) for start, a in growing]
            segments += [(start, end) for start, end, _ in tips]
            growing = [(end, a + turn) for _, end, a in tips for turn in (-spread, spread)]
        limbs.append(segments)
    return np.array(limbs)


def draw_images(tree: Tensor, num_images: int, num_points: int, generator: torch.Generator) -> Tensor:
    """Images of points that are spread evenly over one limb each, shape (num_images, 2, 1, K)."""
    limb = torch.randint(NUM_LIMBS, (num_images,), generator=generator)
    lengths = (tree[..., 1, :] - tree[..., 0, :]).norm(dim=-1)  # (limbs, G)
    segment = torch.multinomial(lengths[limb], num_points, replacement=True, generator=generator)  # (B, K)
    start, end = tree[limb[:, None], segment].unbind(dim=2)  # each (B, K, 2)
    along = torch.rand(num_images, num_points, 1, generator=generator)
    return torch.lerp(start, end, along).transpose(1, 2)[:, :, None]


class ToyDiP(nn.Module):
    """DiT blocks over the points of an image, and an MLP head on a token and on one noisy point or all."""

    def __init__(self, settings: Manifold, kind: str) -> None:
        super().__init__()
        size = settings.hidden_size
        self.sees_image = kind == "image"
        self.x_embedder = nn.Linear(_PLANE, size)
        self.t_embedder = TimestepEmbedder(size)
        self.rope = RotaryEmbedding2D(1, settings.num_points, head_size_of(size, settings.num_heads))
        blocks = [DiTBlock(size, settings.num_heads) for _ in range(settings.depth)]
        for block in blocks:
            initialize_block(block)
        self.blocks = nn.ModuleList(blocks)
        width = settings.head_width
        patch_inputs, image_inputs = size + _PLANE, size + _PLANE * settings.num_points
        if self.sees_image:
            budget = _num_weights(patch_inputs, width)
            width = max(w for w in range(1, width + 1) if w == 1 or _num_weights(image_inputs, w) <= budget)
        widths = [image_inputs if self.sees_image else patch_inputs, *[width] * (_HEAD_LAYERS - 1), _PLANE]
        layers = [nn.Linear(before, after) for before, after in itertools.pairwise(widths)]
        for layer in layers:  # "he_nonzero", as the heads of images
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.head = nn.ModuleList(layers)
        own_first = torch.arange(settings.num_points)
        self.order: Tensor
        self.register_buffer("order", (own_first[:, None] + own_first) % settings.num_points)  # (K, K)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """Predict the velocity of images x_t of shape (B, 2, 1, K) at times t of shape (B,); there are no labels y."""
        points = x_t[:, :, 0].transpose(1, 2)  # (B, K, 2)
        condition = F.silu(self.t_embedder(t))[:, None]  # (B, 1, D)
        tokens = self.x_embedder(points)
        for block in cast("Iterable[DiTBlock]", self.blocks):
            tokens = block(tokens, block.adaLN_modulation(condition), self.rope)
        seen = points[:, self.order].flatten(2) if self.sees_image else points  # (B, K, 2 K) or (B, K, 2)
        hidden = torch.cat([tokens, seen], dim=-1)
        for layer in self.head[:-1]:
            hidden = F.silu(layer(hidden))
        return self.head[-1](hidden).transpose(1, 2)[:, :, None]


def _num_weights(inputs: int, width: int) -> int:
    """Parameters of an MLP head."""
    widths = [inputs, *[width] * (_HEAD_LAYERS - 1), _PLANE]
    return sum((before + 1) * after for before, after in itertools.pairwise(widths))


def _train(settings: Manifold, kind: str, seed: int, tree: Tensor, progress: Progress) -> ToyDiP:
    """A trained model; both inputs see the same images, noise and times."""
    torch.manual_seed(seed)
    model = ToyDiP(settings, kind)
    generator = torch.Generator().manual_seed(seed)
    rate = getattr(settings.learning_rate, kind)
    optimizer = AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    schedule = CosineAnnealingLR(optimizer, settings.num_steps)
    y = torch.zeros(settings.batch_size, dtype=torch.int64)
    for _ in range(settings.num_steps):
        x_1 = draw_images(tree, settings.batch_size, settings.num_points, generator)
        x_0 = torch.randn(x_1.shape, generator=generator)
        u = torch.rand(settings.batch_size, generator=generator, dtype=torch.float64)
        path = sample_path(x_0, x_1, timesteps(_TIMES, u).float())
        velocity_loss(model(path.x_t, path.t, y), path.v).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        progress.advance()
    return model.eval()


def _sample(model: ToyDiP, settings: Manifold, seed: int) -> NDArray[np.float32]:
    """Generated points, shape (num_images, K, 2)."""
    shape = (_PLANE, 1, settings.num_points)
    counters = ((index,) for index in range(settings.num_images))
    x_0 = noise(seed, Stream.SAMPLING_NOISE, counters, shape, torch.device("cpu"))
    y = torch.zeros(settings.num_images, dtype=torch.int64)
    return _as_points(sample(model, x_0, y, Sampling(num_steps=settings.sampling_steps), null_class=0))


def _as_points(images: Tensor) -> NDArray[np.float32]:
    """Images (B, 2, 1, K) as points (B, K, 2)."""
    return images[:, :, 0].transpose(1, 2).numpy()


def measure(points: NDArray[Any], tree: NDArray[np.float64]) -> dict[str, float]:
    """How near generated points (num_images, K, 2) are to the tree: `off`, `missed` and `together` of `run`."""
    to_limbs = np.stack([_distances(points.reshape(-1, _PLANE), limb).min(axis=1) for limb in tree])
    nearest = to_limbs.argmin(axis=0).reshape(points.shape[:2])
    missed, _ = cKDTree(points.reshape(-1, _PLANE)).query(_spread_evenly(tree))
    return {
        "off": float(to_limbs.min(axis=0).mean()),
        "missed": float(missed.mean()),
        "together": float((nearest == nearest[:, :1]).all(axis=1).mean()),
    }


def _distances(points: NDArray[Any], segments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of every point (n, 2) to every segment (G, 2, 2), shape (n, G)."""
    start, along = segments[:, 0], segments[:, 1] - segments[:, 0]
    offset = points[:, None] - start  # (n, G, 2)
    share = ((offset * along).sum(-1) / (along**2).sum(-1)).clip(0, 1)
    return np.linalg.norm(offset - share[..., None] * along, axis=-1)


def _spread_evenly(tree: NDArray[np.float64], spacing: float = 0.002) -> NDArray[np.float64]:
    """Places on the tree at equal distances, shape (n, 2)."""
    places = []
    for start, end in tree.reshape(-1, 2, _PLANE):
        count = max(1, round(float(np.linalg.norm(end - start)) / spacing))
        places.append(start + (np.arange(count)[:, None] + 0.5) / count * (end - start))
    return np.concatenate(places)


def draw(settings: Manifold, arrays: dict[str, NDArray[Any]]) -> Figure:
    """Generated points over the tree for either input, and the distances between them for all seeds.

    Args:
        settings: The figure of params.yaml.
        arrays: What `run` returns.
    """
    tree = grow_tree(settings.branchings).reshape(-1, 2, _PLANE)
    figure = Figure(figsize=(2 * COLUMN_INCHES, 2.5), layout="constrained")
    axes = figure.subplots(1, len(INPUTS) + 1, width_ratios=[1, 1, 0.62])
    for kind, ax, points, together in zip(INPUTS, axes, arrays["points"], arrays["together"], strict=False):
        ax.add_collection(LineCollection(list(tree), colors="tab:orange", linewidths=1.6, capstyle="round"))
        ax.plot(*points.reshape(-1, _PLANE).T, ",", color="black", zorder=3)
        ax.set(xlim=(-2.4, 2.4), ylim=(-2.0, 2.5), aspect="equal", xticks=[], yticks=[])
        ax.set_title(_TITLES[kind], loc="left", fontweight="bold")
        ax.set_xlabel(f"{together.mean():.1%} of images on one limb")
        sns.despine(ax=ax, left=True, bottom=True)
    _draw_distances(axes[-1], arrays)
    return figure


def _draw_distances(ax: Axes, arrays: dict[str, NDArray[Any]]) -> None:
    """One dot per seed, and the finest that as many points can cover."""
    colours = sns.color_palette("colorblind", len(INPUTS))
    for index, kind in enumerate(INPUTS):
        for place, measure_name in enumerate(_MEASURES):
            values = arrays[measure_name][index]
            x = np.full(len(values), place + 0.3 * (index - 0.5))
            style = {"color": colours[index], "marker": MARKERS[index], "markersize": 4, "linestyle": "none"}
            ax.plot(x, values, label=f"{kind}-level" if place == 0 else None, **style)
    floor = arrays["missed_by_truth"].mean()
    ax.plot([0.7, 1.3], [floor, floor], color="0.4", linestyle=":", label="points of the tree")
    ax.set(xticks=range(len(_MEASURES)), xlim=(-0.5, 1.5), ylabel="Mean distance ↓")
    ax.set_xticklabels(list(_MEASURES.values()))
    ax.set_ylim(bottom=0)
    ax.set_title("(c) all seeds", loc="left", fontweight="bold")
    ax.legend(frameon=False, handlelength=1)
    sns.despine(ax=ax)
