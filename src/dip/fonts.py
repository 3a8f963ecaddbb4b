"""Fonts that have the letters of names: those of classes and runs may be in any script."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

import matplotlib as mpl
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font

_log = logging.getLogger(__name__)
FONT = "DejaVu Sans"
"""The font of all figures. It comes with matplotlib, and has neither Chinese, Japanese nor Korean."""
# What Linux distributions have for the scripts that it lacks.
_OTHERS = (
    *(f"Noto Sans {script}" for script in ("CJK SC", "CJK JP", "CJK TC", "CJK KR", "SC", "JP", "TC", "KR")),
    *(f"Noto Sans {script}" for script in ("Devanagari", "Bengali", "Tamil", "Thai")),
    *("Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback"),
    *("IPAexGothic", "IPAGothic", "NanumGothic", "Unifont"),
)


def families() -> list[str]:
    """Names of fonts for matplotlib, which takes every letter from the first one that has it."""
    return list(_files())


def font_for(text: str) -> Path:
    """The file of the font in which the fewest letters of a text are missing; said once where some are."""
    lacks = {path: _missing(path, text) for path in _files().values()}
    best = min(lacks, key=lambda path: len(lacks[path]))  # the first of several
    if lacks[best]:
        _say_missing(lacks[best][0])
    return best


@functools.cache
def _files() -> dict[str, Path]:
    """Upright fonts by name, the usual one first; of the others those that are installed."""
    found = {font.name: Path(font.fname) for font in fontManager.ttflist if font.weight in (400, 500)}
    usual = Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    return {FONT: usual, **{name: found[name] for name in _OTHERS if name in found}}


def _missing(path: Path, text: str) -> str:
    font = _opened(path)
    return "".join(letter for letter in dict.fromkeys(text) if not font.get_char_index(ord(letter)))


@functools.cache
def _opened(path: Path) -> FT2Font:
    return FT2Font(str(path))


def _say_missing(letter: str) -> None:
    if not _said:
        _said.append(letter)
        _log.warning(
            "no font here has '%s', and boxes stand for such letters: install one (fonts-noto-cjk for Chinese, "
            "Japanese and Korean) and remove %s, where matplotlib remembers which there are",
            letter,
            mpl.get_cachedir(),
        )


_said: list[str] = []  # the first letter that was missing in this process
