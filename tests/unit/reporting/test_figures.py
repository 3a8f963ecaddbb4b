"""Figure 10 is drawn, says by what it was measured, and is the same each time."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from dip import fonts
from dip.reporting.figures import Panel, figure10
from dip.reporting.style import house_style, save_figure
from full_disk import full_disk

METRICS: dict[str, Any] = {"feature_extractor": "photo network", "num_samples": 500, "full_protocol": False}


def _points(x: str, y: str, values: dict[float, float], **more: Any) -> list[dict[str, Any]]:
    return [{x: key, y: value, **METRICS, **more} for key, value in values.items()]


def five_panels() -> list[Panel]:
    """Panels of Figure 10: depth, width, patch size against FID and against cost."""
    noted = _points("patch_size", "fid", {16: 91.0}, note="D < 3P²")
    return [
        Panel("(a) Depth", "head.depth", "fid", {"DiP": _points("head.depth", "fid", {2: 14, 1: 16, 3: 13})}),
        Panel("(a) Width", "head.width", "sfid", {"DiP": _points("head.width", "sfid", {8: 12, 32: 9})}),
        Panel(
            "(b) FID",
            "patch_size",
            "fid",
            {
                "DiP": _points("patch_size", "fid", {4: 10.5, 8: 13, 16: 21}),
                "DiT-only": _points("patch_size", "fid", {4: 11.5, 8: 14.8}) + noted,
            },
        ),
        Panel("(b) Cost", "patch_size", "gflops", {"DiP": [{"patch_size": 4, "gflops": 300.0}]}),
        Panel(
            "(b) Latency",
            "patch_size",
            "latency_seconds",
            {"DiP": [{"patch_size": 4, "latency_seconds": 0.3, "device": "CPU, EPYC"}]},
        ),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the figure was saved."""
    return tmp_path_factory.mktemp("figure")


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Figure:
    """The figure as it was saved."""
    saved: list[Figure] = []
    save = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda self, *a, **k: (saved.append(self), save(self, *a, **k)))
        figure10(five_panels(), folder / "f.pdf", folder / "f.png", caption="Demo study.")
    return saved[-1]


@pytest.mark.slow
def test_files_are_valid_and_repeatable(drawn: Figure, folder: Path, tmp_path: Path) -> None:
    """A file is damaged or empty, carries a date, or depends on settings that a caller made."""
    with mpl.rc_context({"font.size": 31, "axes.facecolor": "black"}):
        figure10(five_panels(), tmp_path / "f.pdf", tmp_path / "f.png", caption="Demo study.")
    pdf, png = ((folder / f"f.{kind}").read_bytes() for kind in ("pdf", "png"))
    assert (pdf, png) == tuple((tmp_path / f"f.{kind}").read_bytes() for kind in ("pdf", "png"))
    assert pdf.startswith(b"%PDF") and pdf.rstrip().endswith(b"%%EOF")
    assert b"CreationDate" not in pdf
    with Image.open(folder / "f.png") as image:
        assert image.width == 1035  # 3.45 inches at 300 dots
        colours = image.convert("RGB").getcolors(1 << 24)
        assert colours is not None and len(colours) > 50


def test_full_disk_is_told_and_the_earlier_figure_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a figure is matplotlib's own error with a traceback, which tells of no disk."""

    def savefig(figure: Figure, file: IO[bytes], **_: Any) -> None:
        try:
            file.write(bytes(20_000))
        except OSError:  # a PDF closes a stream that it has not opened
            raise AttributeError("'Stream' object has no attribute 'pos'") from None

    monkeypatch.setattr(Figure, "savefig", savefig)
    (tmp_path / "f.pdf").write_text("earlier")
    with full_disk(10_000), pytest.raises(OSError, match=r"File too large: '.*/f\.pdf'"):
        save_figure(Figure(), tmp_path / "f.pdf", tmp_path / "f.png")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]


def test_letters_of_any_script_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels in Chinese are boxes, though a font that has the letters is installed."""
    monkeypatch.setattr("dip.reporting.style.families", lambda: [fonts.FONT, "Last Resort High-Efficiency"])
    for text in ("DiP", "\u9ce5"):
        with house_style():
            figure = Figure(figsize=(1, 1))
            figure.text(0, 0, text, fontweight="bold")
        with warnings.catch_warnings(action="error"):  # of a letter that is missing
            save_figure(figure, tmp_path / "f.pdf", tmp_path / "f.png")


def test_says_by_what_it_was_measured(drawn: Figure) -> None:
    """The figure can be mistaken for the paper's, or does not name evaluator, samples and device."""
    footer = " ".join(drawn.texts[-1].get_text().split())
    assert footer.startswith("Demo study. Measured by this repository, not taken from the paper.")
    assert "photo network, 500 samples, not the paper's full protocol" in footer
    assert "Timed on CPU, EPYC." in footer


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that would have been saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: figures.append(self))
    return figures


def test_numbers_and_titles_do_not_overlap(tmp_path: Path, unsaved: list[Figure]) -> None:
    """Numbers of a sweep are printed over each other, or a title or label leaves its place."""
    sweeps = {
        "cfg_scale": (1, 1.25, 1.5, 2, 2.5, 2.9, 3, 4),
        "num_steps": (10, 25, 50, 75, 100, 125, 150, 200, 250),
        "head.width": (16, 24, 32, 40, 48, 56, 64),
        "ema_decay": (0.9, 0.97, 0.98, 0.99, 0.999, 0.9996, 0.9999, 0.99996),
    }
    label = "A series whose label says everything about its runs, in many words"
    panels = [
        Panel("(a) depth of the Patch Detailer Head", x, "fid", {label: _points(x, "fid", dict.fromkeys(values, 3.0))})
        for x, values in sweeps.items()
    ]
    figure10(panels, tmp_path / "f.pdf", tmp_path / "f.png")
    figure = unsaved[-1]
    FigureCanvasAgg(figure).draw()
    for ax, values in zip(figure.axes, sweeps.values(), strict=True):
        assert sorted([*ax.get_xticks(), *ax.get_xticks(minor=True)]) == pytest.approx(sorted(values))
        boxes = [text.get_window_extent() for text in ax.get_xticklabels()]
        assert len(boxes) >= 3
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
        assert ax.get_xticks()[-1] == values[-1]
    left, right = (ax._left_title.get_window_extent() for ax in figure.axes[:2])
    assert left.x1 < right.x0 and right.x1 < figure.bbox.x1
    assert figure.legends[0].get_window_extent().x1 < figure.bbox.x1


def test_a_long_legend_ends_above_the_panels(tmp_path: Path, unsaved: list[Figure]) -> None:
    """Its last series lie on the titles of the panels."""
    labels = [f"Series {number} of many runs, each of its own" for number in range(16)]
    series = {label: _points("patch_size", "fid", {8: 9.0}) for label in labels}
    figure10([Panel("(a) Patches", "patch_size", "fid", series)] * 2, tmp_path / "f.pdf", tmp_path / "f.png")
    figure = unsaved[-1]
    figure.set_dpi(300)
    FigureCanvasAgg(figure).draw()
    assert figure.axes[0].get_tightbbox().y1 <= figure.legends[0].get_window_extent().y0


def test_axes_show_the_values_that_were_run(drawn: Figure) -> None:
    """Ticks stand between the settings, patch sizes are not on a log scale, or a direction is not given."""
    depth, width, patch = drawn.axes[:3]
    assert depth.get_xticks().tolist() == [1, 2, 3]
    assert width.get_xticks().tolist() == [8, 32]
    assert patch.get_xticks().tolist() == [4, 8, 16] and patch.get_xscale() == "log"
    assert [ax.get_ylabel() for ax in (depth, width)] == ["FID ↓", "sFID ↓"]
    labels = [depth.yaxis.get_major_formatter()(y) for y in depth.get_yticks()]
    assert len({len(label.partition(".")[2]) for label in labels}) == 1, f"14 and 14.5 on one axis: {labels}"
    line = depth.lines[0]
    assert list(line.get_xdata()) == [1, 2, 3], "the line runs back and forth"


def test_a_sweep_has_its_points_inside_the_axes(tmp_path: Path, unsaved: list[Figure]) -> None:
    """Points of a narrow range lie on each other, or those of a wide one on the frame."""
    sweeps = {"cfg_scale": (1.0, 2.9, 4.0), "ema_decay": (0.99, 0.999, 0.9999), "num_steps": (25, 50, 100)}
    points = {x: _points(x, "fid", dict.fromkeys(values, 2.0)) for x, values in sweeps.items()}
    panels = [Panel(x, x, "fid", {"DiP": points[x]}) for x in sweeps]
    figure10(panels, tmp_path / "f.pdf", tmp_path / "f.png")
    for ax, values in zip(unsaved[0].axes, sweeps.values(), strict=False):
        low, *inside, high = ax.transAxes.inverted().transform(
            ax.transData.transform([(x, 2.0) for x in (ax.get_xlim()[0], *values, ax.get_xlim()[1])])
        )[:, 0]
        assert (low, high) == pytest.approx((0, 1))
        assert 0.08 < inside[0] < 0.25 and 0.75 < inside[-1] < 0.92
    assert unsaved[0].axes[0].get_xlabel() == "Guidance scale"
    decay = unsaved[0].axes[1]
    places = decay.transData.transform([(x, 2.0) for x in sweeps["ema_decay"]])[:, 0]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1]), "decays lie on each other near 1"
    assert [decay.xaxis.get_major_formatter()(x) for x in (*sweeps["ema_decay"], 0.99996)][2:] == ["0.9999", "0.99996"]


def test_noted_point_is_open_and_explained(drawn: Figure) -> None:
    """A point that is an artefact looks like any other."""
    patch = drawn.axes[2]
    open_points = [line for line in patch.lines if line.get_markerfacecolor() == "white"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in open_points] == [(16, 91)]
    series, notes = drawn.legends
    assert [text.get_text() for text in series.get_texts()] == ["DiP", "DiT-only"]
    assert [text.get_text() for text in notes.get_texts()] == ["D < 3P²"]


def test_text_does_not_overlap(drawn: Figure) -> None:
    """Legend, panels, notes and footer lie on each other or beyond the page."""
    drawn.set_dpi(300)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    renderer = canvas.get_renderer()
    footer = drawn.texts[-1].get_window_extent(renderer)
    series, notes = (legend.get_window_extent(renderer) for legend in drawn.legends)
    boxes = [ax.get_tightbbox(renderer) for ax in drawn.axes if ax.axison]
    assert footer.y0 >= 0 and footer.x1 <= drawn.bbox.width
    assert footer.y1 <= notes.y0 and notes.y1 <= min(box.y0 for box in boxes)
    assert max(box.y1 for box in boxes) <= series.y0 and series.y1 <= drawn.bbox.height


def test_two_notes_get_letters(tmp_path: Path, unsaved: list[Figure]) -> None:
    """Open points of two kinds cannot be told apart."""
    points = _points("patch_size", "fid", {8: 1.0}, note="first") + _points(
        "patch_size", "fid", {4: 2.0}, note="second"
    )
    figure10([Panel("p", "patch_size", "fid", {"DiP": points})], tmp_path / "f.pdf", tmp_path / "f.png")
    assert [text.get_text() for text in unsaved[0].legends[1].get_texts()] == ["a: first", "b: second"]
    assert [text.get_text() for text in unsaved[0].axes[0].texts] == ["b", "a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": "head.colour"}, "unknown quantity 'head.colour'; expected one of head.depth"),
        ({"series": {"DiP": []}}, "panel 'p' has no points"),
        ({"series": {"DiP": [{"patch_size": 4, **METRICS}]}}, "fid should be a finite number, it is None"),
        ({"series": {"DiP": _points("patch_size", "fid", {4: float("nan")})}}, "finite number, it is nan"),
        ({"series": {"DiP": _points("patch_size", "fid", {0: 1.0})}}, "patch_size must be above 0"),
        ({"series": {"DiP": [{"patch_size": 4, "fid": 1.0}]}}, "needs its feature_extractor and num_samples"),
    ],
)
def test_user_mistakes(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A figure with a wrong or missing value is drawn, or an earlier one is lost."""
    arguments = {"title": "p", "x": "patch_size", "y": "fid", "series": {}} | change
    target = tmp_path / "f.pdf"
    target.write_text("earlier")
    with pytest.raises(ValueError, match=message):
        figure10([Panel(**arguments)], target, tmp_path / "f.png")
    assert target.read_text() == "earlier"


def test_no_panels(tmp_path: Path) -> None:
    """A figure without panels crashes inside the drawing library."""
    with pytest.raises(ValueError, match="at least one panel"):
        figure10([], tmp_path / "f.pdf", tmp_path / "f.png")


def test_dollars_are_text(tmp_path: Path) -> None:
    """Wrong: a label that speaks of two prices would be set in italics without its dollars, or end in an error."""
    text = r"from $1 {x to $2"
    points = _points("head.depth", "fid", {1: 2.0, 2: 1.0}, note=text)
    panels = [Panel(text, "head.depth", "fid", {text: points})]
    figure10(panels, tmp_path / "f.pdf", tmp_path / "f.png", caption=text)
    with house_style():
        figure = Figure()
        assert not figure.text(0, 0, text).get_parse_math()
