"""A table as Markdown, HTML and LaTeX: published rows in one block, measured rows in another."""

from __future__ import annotations

import html
import re
import string
import unicodedata
from collections.abc import Iterator

import pandas as pd
from markdown_it import MarkdownIt

from dip.reporting.columns import COLUMNS

_OF_METRICS = ("feature_extractor", "num_samples", "protocol")  # where metrics come from
_ALIKE = (*_OF_METRICS, "reference")  # what metrics that are ranked against each other have in common
_BLOCKS = {"published": "Published, as printed in the paper", "measured": "Measured by this repository"}
_NOT_FULL = "not the full protocol"
_NOT_COMPARABLE = (
    "Measured rows that were not obtained by the full protocol compare with each other, not with published ones."
)
_NOT_COMPARABLE_EITHER = (
    "Measured rows that were not obtained by the full protocol do not compare with published ones, and with each other "
    "only where evaluator, samples and protocol are the same."
)
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta",
    "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "%_&#{}$"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"${character}$" for character in "<>|"},
    **{character: "{" + character + "}" for character in "[]*"},  # read as arguments after \\
    **{letter: rf"$\{name}$" for letter, name in _GREEK.items()},
    "×": r"$\times$", "→": r"$\rightarrow$", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "²": "$^2$",
    "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "≠": r"$\neq$", "−": "$-$", "∞": r"$\infty$",
    "µ": r"$\mu$",
    "`": r"\textasciigrave{}", "–": "--", "—": "---", "’": "'", "“": "``", "”": "''", "…": r"\ldots{}",
}  # fmt: skip


def to_markdown(table: pd.DataFrame, caption: str, provenance: list[str]) -> str:
    """Render a table as GitHub Markdown: the caption, then one block per source.

    The best value of each metric among the measured rows is bold where all of them were measured in one way. A letter
    beside "not the full protocol" leads to what it differs in, below the table.

    Args:
        table: Text cells with the columns of `provenance` among others.
        caption: Plain text.
        provenance: Columns that are not the paper's.

    Returns:
        Text that ends with a line break.
    """
    paper = [column for column in table.columns if column not in provenance]
    parts = [_paragraph(caption)]
    best, letters = _best_cells(table), _deviation_letters(table)
    for source, heading in _BLOCKS.items():
        rows = table[table["source"] == source]
        if rows.empty:
            continue
        kept = [*paper, "protocol"]
        names = {column: _heading(column) for column in paper}
        if source == "measured":
            kept = [*paper, "run", "device", *(_OF_METRICS if _has_metrics(table) else ())]
            names |= {"feature_extractor": "evaluator", "num_samples": "samples"}
        else:
            names |= {"protocol": "source"}
        lines = []
        for section, index in _sections(rows):
            lines.append([f"**{_markdown(section)}**"] + [""] * (len(kept) - 1))
            for i in index:
                cells = [_markdown(_shown(column, str(rows.loc[i, column]))) for column in kept]
                if "protocol" in kept and (letter := letters.get(str(rows.loc[i, "protocol"]))):
                    cells[kept.index("protocol")] += f" ({letter})"
                lines.append([f"**{c}**" if (i, k) in best else c for k, c in zip(kept, cells, strict=True)])
        block = pd.DataFrame(lines, columns=[names.get(column, column) for column in kept])
        align = tuple("right" if _is_numeric(column) else "left" for column in kept)
        parts.append(f"**{heading}**")
        parts.append(block.to_markdown(index=False, disable_numparse=True, colalign=align))
    parts += [f"({letter}) {_markdown(text)}." for text, letter in letters.items()]
    if remarks := _remarks(table, best):
        parts.append(_markdown(remarks))
    return "\n\n".join(parts) + "\n"


def to_html(markdown: str, title: str) -> str:
    """What `to_markdown` gives as a web page of its own, for the report and for a browser.

    Args:
        markdown: The table; HTML in it stays text.
        title: Of the page, plain text.

    Returns:
        HTML that ends with a line break and loads nothing.
    """
    body = MarkdownIt("js-default").render(markdown)  # tables; tags in the text stay text
    style = (
        "body { font: 12px sans-serif; margin: 2em; } table { border-collapse: collapse; } "
        "th, td { padding: 3px 6px; white-space: nowrap; } tr { border-bottom: 1px solid #ddd; } "
        ":is(th, td):first-child { position: sticky; left: 0; background: white; }"  # methods, where a page is narrow
    )
    head = f'<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>{style}</style>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}</body>\n</html>\n'


def to_latex(table: pd.DataFrame, caption: str, provenance: list[str], *, label: str) -> str:
    r"""Render a table as a LaTeX float of its own; the document needs `\usepackage{booktabs}` only.

    Args:
        table: Text cells with the columns of `provenance` among others.
        caption: Plain text.
        provenance: Columns that are not the paper's.
        label: What follows `tab:` in the label.

    Returns:
        Text that ends with a line break. A letter beside each method leads to its evaluator and number of
        samples below the table, or to its device where the table shows no metrics.
    """
    kept = [column for column in table.columns if column not in provenance]
    names = {column: escape_latex(_heading(column, COLUMNS[column].short)) for column in kept}
    best, (marks, notes) = _best_cells(table), _evaluator_notes(table)
    lines = [
        r"\begin{table*}",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{escape_latex(_one_line(caption))}}}",
        rf"\label{{tab:{re.sub(r'[^A-Za-z0-9:-]', '-', label)}}}",
        r"\makebox[\textwidth][c]{%",
        rf"\begin{{tabular}}{{@{{}}{''.join('r' if _is_numeric(column) else 'l' for column in kept)}@{{}}}}",
        r"\toprule",
        " & ".join(names.values()) + r" \\",
    ]
    for source, heading in _BLOCKS.items():
        rows = table[table["source"] == source]
        if rows.empty:
            continue
        lines += [r"\midrule", _banner(rf"\textbf{{{heading}}}", len(kept))]
        for section, index in _sections(rows):
            lines.append(_banner(rf"\emph{{{escape_latex(section)}}}", len(kept)))
            for i in index:
                cells = [escape_latex(_shown(column, str(rows.loc[i, column]))) for column in kept]
                cells = [rf"\textbf{{{c}}}" if (i, k) in best else c for k, c in zip(kept, cells, strict=True)]
                cells[0] += rf"$^{{\mathrm{{{marks[i]}}}}}$"
                lines.append(r"\quad " + " & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}", "", r"\smallskip"]
    lines += [" ".join([*notes, escape_latex(_remarks(table, best))]).strip(), r"\end{table*}"]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Plain text as LaTeX source: its special characters, Greek letters and the field's signs (x, arrows, squares)."""
    return "".join(map(_latex, text))


def _latex(character: str) -> str:
    """One character, raised and lowered ones (10⁻⁴, x₀) in math, as pdfLaTeX knows hardly any of them."""
    kind, *codes = unicodedata.decomposition(character).split() or [""]
    if character in _LATEX or kind not in ("<super>", "<sub>"):
        return _LATEX.get(character, character)
    plain = "".join(chr(int(code, 16)) for code in codes).replace("−", "-")
    return f"${'^' if kind == '<super>' else '_'}{{{plain}}}$"


def _heading(column: str, short: str = "") -> str:
    return f"{short or column} {COLUMNS[column].better}".rstrip()


def _shown(column: str, text: str) -> str:
    """A cell as a person reads it: 50,000 samples, 84×8 hours, a dash where there is nothing."""
    if column == "num_samples" and text.isdigit():
        return f"{int(text):,}"
    if column == "protocol" and text.startswith(_NOT_FULL):
        return _NOT_FULL  # a note says the rest
    if column in ("NFE", "training cost"):
        text = re.sub(r"(?<=\d)x(?=\d)", "×", text)
    return text or "-"


def _is_numeric(column: str) -> bool:
    return column not in ("method", "run", "device", "feature_extractor", "protocol")


def _sections(rows: pd.DataFrame) -> Iterator[tuple[str, list[int]]]:
    for section in rows["section"].unique():
        yield section, list(rows.index[rows["section"] == section])


def _best_cells(table: pd.DataFrame) -> set[tuple[int, str]]:
    """Cells of measured rows that hold the best value of their column, ties included."""
    measured = table[table["source"] == "measured"]
    if len(measured) < 2 or len(measured[list(_ALIKE)].drop_duplicates()) > 1:
        return set()
    best = set()
    for column in _evaluated(table):
        values = pd.to_numeric(measured[column])
        if values.nunique() < 2:
            continue  # a tie of all
        target = values.min() if COLUMNS[column].better == "↓" else values.max()
        best |= {(i, column) for i in measured.index[values == target]}
    return best


def _partial_rows(table: pd.DataFrame) -> set[int]:
    """Measured rows whose metrics are not the full protocol's."""
    return set(table.index[(table["source"] == "measured") & (table["protocol"] != "full protocol")])


def _has_metrics(table: pd.DataFrame) -> bool:
    """Whether it shows what an evaluator measured; a table of costs does not."""
    return bool(_evaluated(table))


def _evaluated(table: pd.DataFrame) -> list[str]:
    return [column for column in table.columns if COLUMNS[column].is_evaluated]


def _deviation_letters(table: pd.DataFrame) -> dict[str, str]:
    """A letter for each way in which metrics differ from the full protocol."""
    if not _has_metrics(table):
        return {}
    texts = dict.fromkeys(str(table.loc[i, "protocol"]) for i in sorted(_partial_rows(table)))
    return {text: _letter(number) for number, text in enumerate(texts)}


def _remarks(table: pd.DataFrame, best: set[tuple[int, str]]) -> str:
    """What a reader has to know below the table."""
    remarks = ["Bold: best measured value."] if best else []
    if _has_metrics(table) and (partial := _partial_rows(table)):
        measured = table[table["source"] == "measured"]
        alike = len(measured) == len(partial) and len(measured[list(_ALIKE)].drop_duplicates()) == 1
        remarks.append(_NOT_COMPARABLE if alike else _NOT_COMPARABLE_EITHER)
    for run, checkpoint in table.loc[table["init_from"] != "", ["run", "init_from"]].itertuples(index=False):
        remarks.append(
            f"{run} started from {checkpoint}, whose training is counted neither in its cost nor its epochs."
        )
    return " ".join(remarks)


def _evaluator_notes(table: pd.DataFrame) -> tuple[dict[int, str], list[str]]:
    """A letter for each row of the table, and in LaTeX what it stands for: evaluator and samples, or a device."""
    has_metrics, partial = _has_metrics(table), _partial_rows(table)
    marks: dict[int, str] = {}
    letters: dict[str, str] = {}
    for i in table.index:
        extractor, num_samples, source = table.loc[i, ["feature_extractor", "num_samples", "source"]]
        text = f"{extractor}, {_shown('num_samples', num_samples)} samples"
        text += ", as printed" if source == "published" else f", {table.loc[i, 'protocol']}" if i in partial else ""
        text = text if has_metrics else str(table.loc[i, "device"])
        marks[i] = letters.setdefault(text, _letter(len(letters)))
    return marks, [rf"$^{{\mathrm{{{letter}}}}}${escape_latex(text)}." for text, letter in letters.items()]


def _letter(number: int) -> str:
    """The mark of a note, counted from 0: a to z, then aa, ab, ..."""
    rest, last = divmod(number, 26)
    return (_letter(rest - 1) if rest else "") + string.ascii_lowercase[last]


def _banner(content: str, num_columns: int) -> str:
    return rf"\multicolumn{{{num_columns}}}{{@{{}}l}}{{{content}}} \\"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _paragraph(text: str) -> str:
    """A paragraph of plain text as Markdown: a line begins no heading, list, quotation or address of a link."""
    return re.sub(r"^(\d*)(?=[-+#>.)])|^(?=\[)", r"\1\\", _markdown(text))


def _markdown(text: str) -> str:
    """Plain text as Markdown: escaped where a character would be read as markup, as `_` inside a word is not."""
    markup = r"[\\|`*$]|~(?=~)|\[(?=[^\]]*\]\()|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=#?\w+;)"
    return re.sub(markup, r"\\\g<0>", _one_line(text))
