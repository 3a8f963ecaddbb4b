"""Galleries show the classes that they name, each sample by its own noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dip import cli, params
from dip.experiments import gallery
from dip.model import build_model
from dip.paths import RunFolder
from dip.reporting.style import house_style, save_figure
from dip.schema import Gallery, Params, Run
from dip.training.checkpoint import save_weights


@pytest.fixture
def made(workplace: Path, run: Run) -> Params:
    """The tiny params.yaml, and random weights of its run `dip`."""
    torch.manual_seed(0)
    weights = build_model(run.model, 8, 2).state_dict()
    random = {name: value + 0.1 * torch.randn_like(value) for name, value in weights.items()}  # labels matter
    save_weights(RunFolder.of("demo", "dip").model, random, "{}")
    return params.load()


def settings(**changes: Any) -> Gallery:
    content = {"kind": "gallery", "caption": "Some.", "run": "dip", "classes": {0: "coins", 1: "chelsea"}}
    return Gallery(**(content | {"num_samples": 5, "columns": 3} | changes))


def test_samples_do_not_depend_on_what_else_is_shown(made: Params) -> None:
    """Wrong: another selection of classes would show other images of the same class."""
    images = gallery.run(settings(), made)["images"]
    assert images.shape == (2, 5, 8, 8, 3) and images.dtype == np.uint8
    alone = gallery.run(settings(classes={1: "chelsea"}), made)["images"]
    assert np.abs(alone[0].astype(int) - images[1]).max() <= 1
    assert (gallery.run(settings(seed=1), made)["images"] != images).mean() > 0.5
    assert (gallery.run(settings(cfg_scale=1.0), made)["images"] != images).mean() > 0.1
    assert (gallery.run(settings(cfg_interval=(0.4, 0.6)), made)["images"] != images).mean() > 0.1
    assert (images[0] != images[1]).mean() > 0.5, "each class has noise of its own"


def test_many_samples_are_drawn_in_batches(made: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a thousand samples of a class would not fit into a GPU; or a batch would begin with the noise again."""
    images = gallery.run(settings(), made)["images"]
    monkeypatch.setattr(gallery, "_BATCH_SIZE", 2)
    assert np.abs(gallery.run(settings(), made)["images"].astype(int) - images).max() <= 1


def test_a_pixel_of_an_image_is_a_dot_of_the_picture(tmp_path: Path) -> None:
    """Wrong: the picture would be resampled, and details that are judged would not be the model's."""
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 128, 128, 3), np.uint8)
    with house_style():
        save_figure(gallery.draw(settings(), {"images": images}), tmp_path / "g.pdf", tmp_path / "g.png")
    with Image.open(tmp_path / "g.png") as file:
        picture = np.asarray(file.convert("RGB"))
    cell = 128 + 4
    assert picture.shape == (2 * (2 * cell + 40), 3 * cell, 3)
    for label in (0, 1):
        top = label * (2 * cell + 40) + 40
        for place in range(5):
            row, column = divmod(place, 3)
            part = picture[top + cell * row :, cell * column :][:128, :128]
            np.testing.assert_array_equal(part, images[label, place])
        assert (picture[top + cell : top + 2 * cell, 2 * cell :] == 255).all(), "the empty place is white"
        assert (picture[top - 40 : top, :100] < 128).any(), "the name stands above"


def test_small_images_are_enlarged() -> None:
    """Wrong: nobody could see an image of 32 pixels at 300 dots per inch."""
    figure = gallery.draw(settings(), {"images": np.zeros((2, 5, 32, 32, 3), np.uint8)})
    assert figure.get_figwidth() == pytest.approx(3 * 100 / 300)


def test_few_samples_fill_the_picture() -> None:
    """Wrong: most of a picture of three samples would be white."""
    with house_style():
        figure = gallery.draw(settings(num_samples=2, columns=8), {"images": np.zeros((2, 2, 32, 32, 3), np.uint8)})
    assert figure.get_figwidth() == pytest.approx(2 * 100 / 300)


def test_a_name_that_is_wider_than_its_samples_is_whole(tmp_path: Path) -> None:
    """Wrong: it would be cut off, and the samples below it would be stretched if the picture followed it."""
    images = np.random.default_rng(0).integers(0, 256, (1, 1, 128, 128, 3), np.uint8)
    with house_style():
        one = gallery.draw(settings(num_samples=1, classes={0: "immunohistochemistry"}), {"images": images})
        save_figure(one, tmp_path / "g.pdf", tmp_path / "g.png")
    with Image.open(tmp_path / "g.png") as file:
        picture = np.asarray(file.convert("RGB"))
    np.testing.assert_array_equal(picture[40:168, :128], images[0, 0])
    assert one.texts[0].get_window_extent().x1 <= picture.shape[1]


def test_names_and_numbers_must_belong_together(made: Params) -> None:
    """Wrong: a figure would show bullfrogs under the name of tree frogs."""
    gallery.check_names({0: "Coins, money", 1: "chelsea"}, ["coins", "chelsea"])
    with pytest.raises(ValueError, match="class 1 of the dataset is 'chelsea', not 'coins'"):
        gallery.run(settings(classes={1: "coins"}), made)
    names = ["goldfish, Carassius auratus", "crane", "maillot", "crane"]
    assert gallery.class_numbers(["goldfish", "3"], names) == {0: names[0], 3: "crane"}
    with pytest.raises(ValueError, match=r"'crane' is several classes \(1, 3\)"):
        gallery.class_numbers(["crane"], names)
    for text in ("shark", "4"):
        with pytest.raises(ValueError, match=f"'{text}' is no class of the dataset; it has 4"):
            gallery.class_numbers([text], names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": {2: "sky"}}, r"figures\.gallery\.demo\.classes\.2: the dataset of 'dip' has 2 classes"),
        ({"run": "dap"}, r"figures\.gallery\.demo: there is no run 'dap'"),
        ({"classes": {}}, r"figures\.gallery\.demo\.classes: "),
        ({"cfg_scale": 0.5}, r"figures\.gallery\.demo\.cfg_scale: "),
        ({"cfg_interval": [0.9, 0.1]}, r"figures\.gallery\.demo\.cfg_interval: \[0\.9, 0\.1\] is empty"),
    ],
)
def test_mistakes_are_found_in_params(
    load: Callable[..., Params], content: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    """Wrong: they would show after hours of training."""
    entry = {"kind": "gallery", "caption": "Some.", "run": "dip", "classes": {0: "coins"}}
    content["figures"]["gallery"] = {"demo": entry | change}
    with pytest.raises(params.ParamsError, match=message):
        load(content)


def test_command_line(made: Params, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: classes could not be looked at without an entry in params.yaml."""
    cli.main(["gallery", "dip", "--classes", "chelsea", "0", "--num-samples", "2", "--output", "some.png"])
    assert capsys.readouterr().out == "some.png\n"
    assert Path("some.png").stat().st_size > 0 and Path("some.pdf").stat().st_size > 0
    cli.main(["gallery", "dip", "--classes", "1", "--num-samples", "2", "--output", "some.png", "--images", "loose"])
    images = gallery.run(settings(classes={1: "chelsea"}, num_samples=2), made)["images"][0]
    assert sorted(path.name for path in Path("loose").iterdir()) == ["0001-000000.png", "0001-000001.png"]
    for place, pixels in enumerate(images):
        with Image.open(f"loose/0001-{place:06}.png") as file:
            np.testing.assert_array_equal(np.asarray(file), pixels)
    with pytest.raises(SystemExit, match="'sky' is no class"):
        cli.main(["gallery", "dip", "--classes", "sky"])
