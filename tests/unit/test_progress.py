"""Progress in a log: one line per minute at most."""

from __future__ import annotations

import pytest

from dip.progress import Progress


def test_log_is_not_flooded(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: a log would have a line per step, or not say how far it got."""
    with Progress("train", total=1000, initial=200, unit="step") as progress:
        for _ in range(800):
            progress.note("loss 0.1")
            progress.advance()
    lines = capsys.readouterr().err.replace("\r", "\n").split("\n")
    lines = [line for line in lines if line.strip()]
    assert 1 <= len(lines) <= 3
    assert "train" in lines[-1] and "1000/1000" in lines[-1] and "loss 0.1" in lines[-1]
    assert "20%" in lines[0], "a resumed training starts where it stopped"


def test_bar_is_closed_on_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: the error's message would continue the bar's line, or the error would be swallowed."""
    with pytest.raises(RuntimeError, match="stop"), Progress("train", total=10, unit="step"):
        raise RuntimeError("stop")
    assert capsys.readouterr().err.endswith("\n")
