"""One photograph learned by heart, at a size that takes a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dip.experiments import overfit
from dip.params import ParamsError
from dip.reporting.style import house_style
from dip.schema import Overfit, Params

Content = dict[str, Any]
Load = Callable[..., Params]
WHERE = "figures.figure3.demo."


def figure(**changes: Any) -> Content:
    return {
        "kind": "overfit",
        "caption": "One photograph.",
        "photograph": "coins",
        "crop": {"top": 40, "left": 30, "size": 8},
        "box_filter": 2,
        "details": [{"top": 1, "left": 2, "size": 4}],
        "series": {
            "DiT-only": {"run": "wide_dit", "learning_rate": 1.0e-2},
            "DiP": {"run": "wide_dip", "learning_rate": 1.0e-2},
        },
        "num_steps": 6,
        "batch_size": 2,
        "measure_every": 4,
        "num_samples": 2,
        **changes,
    }


@pytest.fixture
def content(content: Content) -> Content:
    """The tiny params.yaml with runs whose hidden size is 3 P^2."""
    for name, model in (("wide_dit", "dit"), ("wide_dip", "dip")):
        content["runs"][name] = {"base": "dip", "model": {"base": model, "hidden_size": 48}}
    return content


@pytest.fixture
def read(load: Load, content: Content) -> Callable[..., Params]:
    """params.yaml with the figure, some of whose settings are changed."""

    def with_figure(**changes: Any) -> Params:
        content["figures"]["figure3"] = {"demo": figure(**changes)}
        return load(content)

    return with_figure


def settings_of(params: Params) -> Overfit:
    settings = params.figures["figure3"]["demo"]
    assert isinstance(settings, Overfit)
    return settings


def test_run_measures_every_model_at_the_same_steps(read: Callable[..., Params]) -> None:
    """If a model were measured elsewhere, or not at its last step, the curves would not compare them."""
    params = read()
    arrays = overfit.run(settings_of(params), params)
    assert arrays["steps"].tolist() == [4, 6]
    assert arrays["psnr"].shape == (2, 2)
    assert np.isfinite(arrays["psnr"]).all()
    assert arrays["samples"].shape == (2, 8, 8, 3) and arrays["samples"].dtype == np.uint8
    assert not np.array_equal(*arrays["samples"])


def test_run_is_a_function_of_its_settings(read: Callable[..., Params]) -> None:
    """If a second run differed, the figure could not be made again."""
    params = read()
    first, second = (overfit.run(settings_of(params), params) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    other = read(seed=1)
    assert not np.array_equal(first["psnr"], overfit.run(settings_of(other), other)["psnr"])


@pytest.mark.slow
def test_psnr_rises_with_training(read: Callable[..., Params]) -> None:
    """If what is drawn did not come nearer to the photograph, the model would not see the photograph."""
    params = read(num_steps=120, batch_size=8, measure_every=10)
    psnr = overfit.run(settings_of(params), params)["psnr"]
    assert (psnr[:, -1] > psnr[:, 0] + 2).all(), psnr


def test_flips_and_dropped_labels_are_off(read: Callable[..., Params]) -> None:
    """If the label were dropped now and then, part of the training would go to a model that is never sampled."""
    params = read()
    training = overfit._training_of(settings_of(params), params.runs["wide_dip"], 2e-3)
    assert (training.label_dropout, training.learning_rate, training.alignment) == (0.0, 2e-3, None)


def test_crop_is_the_named_square(read: Callable[..., Params]) -> None:
    """If rows and columns were swapped, another part of the photograph would be learned."""
    from dip.data.crop import box_reduce
    from dip.data.photographs import load_photograph

    pixels = box_reduce(load_photograph("coins"), 2)
    crop = overfit.crop_photograph(settings_of(read()))
    assert np.array_equal(crop, pixels[40:48, 30:38])


def test_draw_has_markers_for_many_models(read: Callable[..., Params]) -> None:
    """Wrong: after all models were trained, the eighth would end in an error."""
    settings = settings_of(read(series={f"{n}": {"run": "wide_dip", "learning_rate": 1.0e-2} for n in range(9)}))
    arrays = {
        "photograph": np.zeros((8, 8, 3), np.uint8),
        "steps": np.array([4, 6]),
        "psnr": np.ones((9, 2)),
        "samples": np.zeros((9, 8, 8, 3), np.uint8),
    }
    with house_style():
        assert len(overfit.draw(settings, arrays).subfigs[0].axes[0].lines) == 9


def test_draw_shows_the_photograph_and_every_model(read: Callable[..., Params]) -> None:
    """If a model or a detail were missing, the figure would not show what its caption says."""
    params = read()
    settings = settings_of(params)
    with house_style():
        drawn = overfit.draw(settings, overfit.run(settings, params))
        titles = [ax.get_title() for part in drawn.subfigs for ax in part.axes]
        drawn.canvas.draw()
    assert [title.split(",")[0] for title in titles if title] == ["Photograph", "DiT-only", "DiP"]
    images = [ax for part in drawn.subfigs for parent in part.axes for ax in (parent, *parent.child_axes) if ax.images]
    assert len(images) == 6


def test_draw_without_details(read: Callable[..., Params]) -> None:
    """If a figure without details failed, `details` would be a required key that the schema does not require."""
    params = read(details=[])
    settings = settings_of(params)
    with house_style():
        overfit.draw(settings, overfit.run(settings, params)).canvas.draw()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": {"top": 145, "left": 0, "size": 8}}, "rows 145 to 153 .* outside photograph 'coins', .* 192 x 151"),
        ({"crop": {"top": 0, "left": 190, "size": 8}}, "columns 190 to 198"),
    ],
)
def test_impossible_crops_are_refused(read: Callable[..., Params], changes: Content, message: str) -> None:
    """If a crop were cut short without a word, the model would fail on its shape, or learn something else."""
    params = read(**changes)
    with pytest.raises(ValueError, match=message):
        overfit.run(settings_of(params), params)


def test_unknown_photograph_is_refused_before_anything_runs(read: Callable[..., Params]) -> None:
    """If it were not, every plan of the whole study would fail on a file that nothing makes."""
    with pytest.raises(ValueError, match=r"figures.figure3.demo.photograph: there is no photograph 'mona_lisa'"):
        read(photograph="mona_lisa")


def test_a_loss_that_is_not_finite_is_named(read: Callable[..., Params]) -> None:
    """If a diverged training went on, the figure would compare noise with a photograph."""
    series = {"DiP": {"run": "wide_dip", "learning_rate": 1.0e30}}
    params = read(series=series, num_steps=20)
    with pytest.raises(ValueError, match="run 'wide_dip' is not finite at step"):
        overfit.run(settings_of(params), params)


@pytest.mark.parametrize(
    ("changes", "where", "what"),
    [
        (
            {"series": {"DiT-only": {"run": "dit", "learning_rate": 1.0e-2}}},
            "series.DiT-only.run",
            "hidden_size 16 of 'dit' is below 3 x patch_size^2 = 48",
        ),
        ({"crop": {"top": 0, "left": 0, "size": 10}}, "series.DiP.run", "patch_size 4 of 'wide_dip' does not divide"),
        ({"details": [{"top": 5, "left": 0, "size": 4}]}, "details.0", "reaches outside the crop of 8 x 8"),
        ({"series": {}}, "series", "at least 1 of them"),
        ({"series": {"DiP": {"run": "none", "learning_rate": 1.0e-2}}}, "", "there is no run 'none'"),
        ({"crop": {"top": -1, "left": 0, "size": 8}}, "crop.top", "greater than or equal to 0"),
    ],
)
def test_mistakes_are_named_by_their_key(read: Callable[..., Params], changes: Content, where: str, what: str) -> None:
    """If these passed, the experiment would fail after minutes, or show an artefact as a result."""
    with pytest.raises(ParamsError) as error:
        read(**changes)
    assert f"{(WHERE + where).rstrip('.')}: " in str(error.value)
    assert what in str(error.value)
