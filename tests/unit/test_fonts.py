"""Which font the letters of a name are taken from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from dip import fonts
from dip.sampling.generate import sample_grid

BIRD, FISH = "\u9ce5", "\u9b5a"  # Chinese and Japanese
ANY = "Last Resort High-Efficiency"  # comes with matplotlib, and has every letter


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have other fonts installed than there are."""

    def install(*names: str) -> None:
        monkeypatch.setattr(fonts, "_OTHERS", names)
        monkeypatch.setattr(fonts, "_said", [])
        fonts._files.cache_clear()

    yield install
    monkeypatch.undo()
    fonts._files.cache_clear()


def grid(name: str) -> bytes:
    return sample_grid(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1, np.int64), [name]).tobytes()


def test_a_font_that_has_the_letters_is_taken(installed: Callable[..., None]) -> None:
    """Wrong: a grid of classes with Chinese names would have empty boxes, or other names another look than before."""
    installed()
    boxes, plain = grid(BIRD), grid("robin")
    installed(ANY, "no such font")
    assert fonts.families() == [fonts.FONT, ANY]
    assert grid(BIRD) != boxes and grid("robin") == plain
    assert [fonts.font_for(text).name for text in ("ü ж λ", f"robin {BIRD}")] == [
        "DejaVuSans.ttf",
        "LastResortHE-Regular.ttf",
    ]


def test_letters_that_no_font_has_are_told_once(
    installed: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: nobody would know where the boxes come from, or read it for every class of a thousand."""
    installed()
    with caplog.at_level(logging.WARNING):
        for name in (f"{BIRD} robin", FISH, BIRD):
            assert fonts.font_for(name).name == "DejaVuSans.ttf"
    (record,) = caplog.records
    assert f"no font here has '{BIRD}', and boxes stand for such letters: install one" in record.message
