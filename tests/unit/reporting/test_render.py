"""Markdown and LaTeX show the rows of the CSV, in blocks, with nothing that breaks them."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dip.reporting.measured import MeasuredRow
from dip.reporting.render import escape_latex, to_html
from dip.reporting.tables import build_table, write_table

MakeRow = Callable[..., MeasuredRow]


def _render(rows: list[MeasuredRow], folder: Path, caption: str = "Heads.", layout: str = "table2") -> tuple[str, str]:
    table = build_table(layout, rows)
    _, markdown, _, latex = write_table(table, folder / "my_table", caption=caption)
    return markdown.read_text(), latex.read_text()


def test_markdown_blocks(make_row: MakeRow, tmp_path: Path) -> None:
    """Published and measured rows share a block, the caption is not first, or a row does not name its evaluator."""
    markdown, _ = _render([make_row("a")], tmp_path, caption="Heads at equal\nsteps.")
    assert markdown.startswith("Heads at equal steps.\n\n**Published")
    published, measured = markdown.split("**Measured by this repository**")
    assert "84×8 GPU hours" in published and "Table 2, row 8" in published
    assert "photo network" not in published
    row = next(line for line in measured.splitlines() if line.startswith("| a "))
    assert all(text in row for text in ("12.97", "photo network", "500", "not the full protocol", "CPU, AMD EPYC"))
    assert "2.16" not in measured
    assert "compare with each other, not with published ones" in measured


def test_a_table_of_costs_names_devices_and_no_evaluator(make_row: MakeRow, tmp_path: Path) -> None:
    """Costs are said not to follow the protocol of metrics that the table does not show, or lack their device."""
    for text in _render([make_row("a")], tmp_path, layout="cost"):
        assert "CPU, AMD EPYC" in text
        assert not any(word in text for word in ("photo network", "protocol", "samples", "published"))


def test_markdown_rows_are_whole(make_row: MakeRow, tmp_path: Path) -> None:
    """A pipe or a line break in a label shifts the cells of its row."""
    markdown, _ = _render([make_row("a", label="x | y\nz")], tmp_path)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert any(r"x \| y z" in line for line in rows)
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in rows}
    assert counts == {11, 15}  # 10 columns of published rows and 14 of measured ones


def test_web_page_shows_the_markdown_and_runs_nothing(make_row: MakeRow, tmp_path: Path) -> None:
    """The page lacks a row or its sign, or a label is taken for HTML."""
    markdown, _ = _render([make_row("a", label="<script>x</script> & P²", fid=13.0), make_row("b")], tmp_path)
    page = (tmp_path / "my_table.html").read_text()
    assert page == to_html(markdown, "my_table")
    assert ">&lt;script&gt;x&lt;/script&gt; &amp; P²</td>" in page and "<script" not in page
    assert page.count("<table>") == 2 and '<meta charset="utf-8">' in page
    assert "**" not in page and re.search(r'<td style="text-align:right">(<strong>)?13\.00<', page)


def test_best_measured_value_is_bold(make_row: MakeRow, tmp_path: Path) -> None:
    """The bold value is not the best, is a published one, or a direction is confused."""
    rows = [make_row("a", fid=14.0, recall=0.5), make_row("b", fid=13.0, recall=0.4)]
    markdown, latex = _render(rows, tmp_path)
    assert "**13.00**" in markdown and "**14.00**" not in markdown
    assert "**0.50**" in markdown and "**0.40**" not in markdown
    assert "**2.16**" not in markdown
    assert r"\textbf{13.00}" in latex and r"\textbf{14.00}" not in latex
    assert "**9.61**" not in markdown, "a tie of all rows has no best"


def test_no_best_between_evaluators(make_row: MakeRow, tmp_path: Path) -> None:
    """Figures of different evaluators or numbers of samples are ranked against each other."""
    rows = [make_row("a", fid=14.0), make_row("b", fid=13.0, num_samples=100)]
    markdown, latex = _render(rows, tmp_path)
    assert "**13.00**" not in markdown
    assert r"\textbf{13.00}" not in latex


@pytest.mark.parametrize(
    "other",
    [
        {"reference": "mine.npz"},
        {"deviations": ["k = 5 instead of 3"]},
        {"full_protocol": False},
    ],
)
def test_no_best_between_protocols(make_row: MakeRow, tmp_path: Path, other: dict[str, Any]) -> None:
    """A row measured against another reference, or in another way, is called the best."""
    same = {"full_protocol": "deviations" not in other, "reference": "VIRTUAL_imagenet256_labeled.npz"}
    rows = [make_row("a", fid=14.0, **same), make_row("b", **(same | {"fid": 13.0} | other))]
    for text in _render(rows, tmp_path):
        assert "13.00" in text and "**13.00**" not in text and r"\textbf{13.00}" not in text
        if "reference" not in other:
            assert "with each other only where evaluator, samples and protocol are the same" in text


def test_what_differs_from_the_protocol_is_said(make_row: MakeRow, tmp_path: Path) -> None:
    """A reader of the table, the report or the paper sees that something differs, and not what."""
    deviations = ["k = 5 instead of 3", "30 JPEG files"]
    rows = [make_row("a", deviations=deviations), make_row("b", deviations=deviations[:1]), make_row("c")]
    markdown, latex = _render(rows, tmp_path)
    assert "not the full protocol (a) |" in markdown and "not the full protocol (c) |" in markdown
    assert "\n\n(a) not the full protocol: k = 5 instead of 3; 30 JPEG files.\n\n(b) not the" in markdown
    assert "photo network, 500 samples, not the full protocol: k = 5 instead of 3; 30 JPEG files." in latex


def test_notes_of_many_rows_have_marks_of_their_own(make_row: MakeRow, tmp_path: Path) -> None:
    """After z two notes share a letter, and a row leads to another row's evaluator."""
    rows = [make_row(f"r{i}", deviations=[f"k = {i}"]) for i in range(28)]
    markdown, latex = _render(rows, tmp_path)
    for letter, i in (("a", 0), ("z", 25), ("aa", 26), ("ab", 27)):
        assert f"\n\n({letter}) not the full protocol: k = {i}.\n" in markdown
    assert re.search(r"\^\{\\mathrm\{ab\}\}\$photo network, 500 samples, not the full protocol: k = 26\.", latex)


def test_a_training_that_another_one_began_says_so(make_row: MakeRow, tmp_path: Path) -> None:
    """Cost and epochs of a warm start look like those of a training from nothing."""
    rows = [make_row("a"), dataclasses.replace(make_row("b"), init_from="results/runs/a/model.safetensors")]
    for text in (*_render(rows, tmp_path), *_render(rows, tmp_path, layout="cost")):
        assert "b started from results/runs/a/model.safetensors, whose training is counted neither" in text
        assert "a started from" not in text


def test_labels_are_plain_text(make_row: MakeRow, tmp_path: Path) -> None:
    """Stars, tildes or brackets of a label are taken for Markdown and vanish from the page."""
    label = r"A*B*C _em_ __init__ a_b `code` ~~s~~ [x](http://y) &lt; a\b <b> **w**"
    _render([make_row("a", label=label)], tmp_path, caption=f"Caption {label}")
    page = (tmp_path / "my_table.html").read_text()
    assert page.count(html.escape(label, quote=False)) == 2


def test_dollars_of_a_label_begin_no_formula(make_row: MakeRow, tmp_path: Path) -> None:
    """Between two dollars GitHub and editors show a formula, and the dollars vanish."""
    markdown, _ = _render([make_row("a", label="$5 and $P^2$")], tmp_path, caption="$P^2$")
    assert markdown.startswith(r"\$P^2\$") and r"| \$5 and \$P^2\$ " in markdown
    assert ">$5 and $P^2$</td>" in (tmp_path / "my_table.html").read_text()


@pytest.mark.parametrize("caption", ["# 1 of 2", "> 5 epochs", "- DiP", "1. DiP", "2024) DiP", "[ref]: DiP", "---"])
def test_caption_is_a_paragraph(make_row: MakeRow, tmp_path: Path, caption: str) -> None:
    """What begins a heading, a list or a quotation elsewhere would vanish from the caption, or the caption itself."""
    _render([make_row("a")], tmp_path, caption=caption)
    assert f"<p>{html.escape(caption)}</p>" in (tmp_path / "my_table.html").read_text()


@pytest.mark.parametrize("layout", ["table1", "table2", "table3"])
def test_latex_rows_are_whole(make_row: MakeRow, tmp_path: Path, layout: str) -> None:
    """A row has more or fewer cells than the table has columns, or a group or environment is not closed."""
    label = r"50% of_a & b #1 {x} $y$ \z [w] ~^ <> *"
    _, latex = _render([make_row("a_b", label=label)], tmp_path, caption=label, layout=layout)
    columns = re.search(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", latex)
    assert columns is not None
    rows = [line for line in latex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in rows} == {len(columns[1])}
    unescaped = re.sub(r"\\.", "", latex)
    assert unescaped.count("{") == unescaped.count("}")
    assert unescaped.count("$") % 2 == 0
    assert latex.count(r"\begin{") == latex.count(r"\end{") == 2
    assert latex.isascii()


def test_latex_rows_lead_to_their_evaluator(make_row: MakeRow, tmp_path: Path) -> None:
    """A measured row does not say with what it was evaluated, or shares its letter with published ones."""
    rows = [make_row("a"), make_row("b", num_samples=1000), make_row("c", full_protocol=True)]
    _, latex = _render(rows, tmp_path)
    for letter, text in [
        ("a", "InceptionV3 (ADM suite), 50,000 samples, as printed."),
        ("b", "photo network, 500 samples, not the full protocol: 500 samples; photo network."),
        ("c", "photo network, 1,000 samples, not the full protocol: 1000 samples; photo network."),
        ("d", "photo network, 500 samples."),
    ]:
        assert rf"$^{{\mathrm{{{letter}}}}}${text}" in latex
    assert r"\quad c$^{\mathrm{d}}$" in latex
    assert latex.count(r"\quad ") == 11


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("100% & #1", r"100\% \& \#1"),
        ("a_b", r"a\_b"),
        ("{$}", r"\{\$\}"),
        ("\\", r"\textbackslash{}"),
        ("~^", r"\textasciitilde{}\textasciicircum{}"),
        ("D < 3P²", "D $<$ 3P$^2$"),
        ("32 × 32", r"32 $\times$ 32"),
        ("FID ↓", r"FID $\downarrow$"),
        ("β = −0.9, Δ", r"$\beta$ = $-$0.9, $\Delta$"),
        ("[41]", "{[}41{]}"),
        ("`a`", r"\textasciigrave{}a\textasciigrave{}"),
        ("10⁻⁴ x₀", "10$^{-}$$^{4}$ x$_{0}$"),
    ],
)
def test_escape_latex(text: str, source: str) -> None:
    """A special character reaches LaTeX as a command."""
    assert escape_latex(text) == source
