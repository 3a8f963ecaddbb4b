"""The toy manifold, at a size that takes a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dip.experiments import manifold
from dip.params import ParamsError
from dip.reporting.style import house_style
from dip.schema import Manifold, Params

FIGURE: dict[str, Any] = {
    "kind": "manifold",
    "caption": "A toy.",
    "branchings": 2,
    "num_points": 4,
    "hidden_size": 8,
    "depth": 1,
    "num_heads": 2,
    "head_width": 16,
    "learning_rate": {"patch": 1.0e-2, "image": 1.0e-2},
    "num_steps": 4,
    "batch_size": 8,
    "sampling_steps": 3,
    "num_images": 6,
    "num_seeds": 2,
}


def settings_of(load: Callable[..., Params], content: dict[str, Any], **changes: Any) -> tuple[Manifold, Params]:
    content["figures"]["figure12"] = {"demo": {**FIGURE, **changes}}
    params = load(content)
    settings = params.figures["figure12"]["demo"]
    assert isinstance(settings, Manifold)
    return settings, params


@pytest.fixture
def settings(load: Callable[..., Params], content: dict[str, Any]) -> Manifold:
    return settings_of(load, content)[0]


@pytest.fixture
def params(load: Callable[..., Params], content: dict[str, Any]) -> Params:
    return settings_of(load, content)[1]


def test_a_training_that_diverges_is_named(load: Callable[..., Params], content: dict[str, Any]) -> None:
    """Wrong: SciPy would say that some data is not finite."""
    rates = {"patch": 1.0e-2, "image": 1.0e30}
    with pytest.raises(ValueError, match=r"image-level input are not finite; lower the figure's learning_rate\.image"):
        manifold.run(*settings_of(load, content, learning_rate=rates, num_seeds=1))


@pytest.mark.slow
def test_run_is_a_function_of_its_settings(settings: Manifold, params: Params) -> None:
    """If a second run differed, the figure could not be made again."""
    first, second = (manifold.run(settings, params) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first["points"].shape == (2, 6, 4, 2)
    assert all(first[name].shape == (2, 2) for name in ("off", "missed", "together"))
    assert not np.array_equal(*first["off"])  # two inputs
    assert first["off"][0, 0] != first["off"][0, 1]  # two seeds


@pytest.mark.parametrize(("kind", "others_matter"), [("patch", False), ("image", True)])
def test_head_sees_what_its_input_says(settings: Manifold, kind: str, others_matter: bool) -> None:
    """If a patch-level head saw other points, both panels would show the same model."""
    torch.manual_seed(0)
    model = manifold.ToyDiP(settings, kind)
    for block in model.blocks:  # no way from point to point through the tokens
        torch.nn.init.zeros_(block.attn.proj.weight)
    x_t = torch.randn(1, 2, 1, 4, requires_grad=True)
    model(x_t, torch.tensor([0.5]), torch.zeros(1, dtype=torch.int64))[0, :, 0, 1].sum().backward()
    assert x_t.grad is not None
    influence = x_t.grad[0, :, 0].abs().sum(dim=0)  # (K,)
    assert influence[1] > 0
    assert bool((influence[[0, 2, 3]] > 0).any()) == others_matter


def test_own_point_comes_first(settings: Manifold) -> None:
    """If the own point had no fixed place, the image-level head could not know which velocity it is to make."""
    model = manifold.ToyDiP(settings, "image")
    assert model.order.tolist() == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]


def test_inputs_have_equal_parameters(load: Callable[..., Params], content: dict[str, Any]) -> None:
    """If the image-level head were larger or much smaller, the panels would compare sizes."""
    settings, _ = settings_of(load, content, num_points=8, hidden_size=32, head_width=128)
    patch, image = (sum(p.numel() for p in manifold.ToyDiP(settings, kind).parameters()) for kind in manifold.INPUTS)
    assert 0.98 * patch <= image <= patch


def test_tree_forks_and_joins(settings: Manifold) -> None:
    """If a branch did not start where its parent ends, the manifold would not be a tree."""
    tree = manifold.grow_tree(2)
    assert tree.shape == (3, 7, 2, 2)
    for limb in tree:
        assert np.allclose(limb[0, 0], 0)
        for child in range(1, 7):
            assert np.allclose(limb[child, 0], limb[(child - 1) // 2, 1])
    turned = tree[0] @ np.array([[-0.5, np.sqrt(0.75)], [-np.sqrt(0.75), -0.5]])
    assert np.allclose(turned, tree[1])


def test_points_of_an_image_lie_on_one_limb(settings: Manifold) -> None:
    """If points left the tree or the limb, no model could be judged by its distance to them."""
    tree = manifold.grow_tree(3)
    images = manifold.draw_images(torch.from_numpy(tree).float(), 500, 4, torch.Generator().manual_seed(0))
    assert images.shape == (500, 2, 1, 4)
    found = manifold.measure(manifold._as_points(images), tree)
    assert found["off"] < 1e-6
    assert found["together"] > 0.95  # a point near the root may be as near to another limb


def test_measures_of_known_points() -> None:
    """If a distance were wrong, so would be the comparison in the figure."""
    tree = np.array([[[[0.0, 0.0], [1.0, 0.0]]], [[[0.0, 1.0], [1.0, 1.0]]], [[[0.0, 9.0], [1.0, 9.0]]]])
    points = np.array([[[0.5, 0.1], [0.5, 0.2]], [[1.3, 0.4], [0.5, 0.9]]])  # 0.1, 0.2, 0.5, 0.1 from a segment
    found = manifold.measure(points, tree)
    assert found["off"] == pytest.approx((0.1 + 0.2 + 0.5 + 0.1) / 4)
    assert found["together"] == 0.5
    covering = np.concatenate([np.linspace(*segment, 2001) for segment in tree.reshape(-1, 2, 2)])[None]
    assert manifold.measure(covering, tree)["missed"] < 5e-4
    assert manifold.measure(covering[:, :2001], tree)["missed"] == pytest.approx((0 + 1 + 9) / 3, abs=1e-3)


@pytest.mark.slow
def test_training_brings_points_to_the_tree(load: Callable[..., Params], content: dict[str, Any]) -> None:
    """If training did not help, the panels would show the noise they started from."""
    untrained, params = settings_of(load, content, num_steps=2, num_seeds=1, num_images=50)
    trained, _ = settings_of(load, content, num_steps=80, num_seeds=1, num_images=50, batch_size=64)
    before, after = (manifold.run(settings, params)["off"] for settings in (untrained, trained))
    assert (after < 0.7 * before).all()


def test_draw_shows_both_inputs(settings: Manifold, params: Params) -> None:
    """If a panel were missing, the figure would not compare the inputs."""
    with house_style():
        figure = manifold.draw(settings, manifold.run(settings, params))
        figure.canvas.draw()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["(a) patch-level input", "(b) image-level input", "(c) all seeds"]


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        ({"hidden_size": 12}, "hidden_size", "12 is not divisible by 4 x num_heads = 8"),
        ({"learning_rate": {"patch": 1.0e-2}}, "learning_rate.image", "missing"),
        ({"num_points": 1}, "num_points", "greater than or equal to 2"),
    ],
)
def test_mistakes_are_named_by_their_key(
    load: Callable[..., Params], content: dict[str, Any], changes: dict[str, Any], where: str, what: str
) -> None:
    """If these passed, the experiment would fail with an error of a layer, or use a default nobody chose."""
    with pytest.raises(ParamsError) as error:
        settings_of(load, content, **changes)
    assert f"figures.figure12.demo.{where}: " in str(error.value)
    assert what in str(error.value)
