"""Progress of long work: a bar on a terminal, one line per minute in a log."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """A tqdm bar that writes to a log at most once a minute.

    Args:
        title: What is being done.
        total: Units in all.
        initial: Units already done by an earlier call.
        unit: What is counted.
    """

    def __init__(self, title: str, *, total: int, initial: int = 0, unit: str) -> None:
        terminal = sys.stderr.isatty()
        self._bar = tqdm(
            desc=title,
            total=total,
            initial=initial,
            unit=f" {unit}s",
            mininterval=0.5 if terminal else 60,
            maxinterval=1 if terminal else 60,
            dynamic_ncols=terminal,
            ascii=not terminal,
        )

    def advance(self, units: int = 1) -> None:
        self._bar.update(units)

    def note(self, text: str) -> None:
        """Show a short text behind the bar."""
        self._bar.set_postfix_str(text, refresh=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
