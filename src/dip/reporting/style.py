"""How all figures look, and how they are written."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from dip.files import atomic_write
from dip.fonts import families

COLUMN_INCHES = 3.45
"""Width of one column of a two-column page."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X")

_STYLE: Any = {
    **mpl.rcParamsDefault,
    **sns.axes_style("ticks", {"axes.grid": True}),
    **{"font.size": 6.5, "axes.titlesize": 6.5, "axes.labelsize": 6.5, "legend.fontsize": 6.5},
    **{"xtick.labelsize": 6, "ytick.labelsize": 6, "xtick.major.size": 2, "ytick.major.size": 2},
    **{"axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "grid.linewidth": 0.4},
    **{"axes.labelpad": 2, "axes.titlepad": 4, "xtick.major.pad": 2, "ytick.major.pad": 2},
    **{"grid.color": "0.9", "pdf.fonttype": 42},
    "text.parse_math": False,  # titles, labels and captions are plain text, also where it has dollars
}
_DATELESS = {"pdf": {"CreationDate": None}, "png": {"Software": None}}


def house_style() -> AbstractContextManager[None]:
    """The style of all figures, for as long as a `with` block lasts."""
    return mpl.rc_context({**_STYLE, "font.family": families()})


def save_figure(figure: Figure, path_pdf: str | Path, path_png: str | Path) -> None:
    """Write a figure as PDF and as PNG at 300 dots per inch; the same figure gives the same bytes.

    Raises:
        OSError: A file cannot be written; an earlier one stays whole.
    """
    for path, kind in ((path_pdf, "pdf"), (path_png, "png")):
        drawn = io.BytesIO()  # matplotlib's PDF would fail over a full disk with an error of its own
        figure.savefig(drawn, format=kind, dpi=300, metadata=_DATELESS[kind])
        with atomic_write(path, "wb") as file:
            file.write(drawn.getbuffer())
