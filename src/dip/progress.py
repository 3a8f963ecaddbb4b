"""Progress of long work: a bar on a terminal, one line per minute in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from dip.files import write_json

_RECORD_SECONDS = 10.0
_record: ContextVar[Path | None] = ContextVar("record", default=None)


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Have all progress inside also written to a JSON file, for processes that look at it from outside."""
    token = _record.set(path)
    try:
        yield
    finally:
        _record.reset(token)


def seconds_left(record: dict[str, Any]) -> float | None:
    """Time that the rest takes at the recorded rate, None if there is no rate yet."""
    return (record["total"] - record["done"]) / record["rate"] if record.get("rate") else None


def describe(record: dict[str, Any]) -> str:
    """A recorded progress in words."""
    left = seconds_left(record)
    text = f"{record['done']} of {record['total']} {record['unit']}s"
    return text if left is None else f"{text}, {record['rate']:.3g}/s, {duration(left)} left"


def duration(seconds: float) -> str:
    """Seconds in the largest units that matter, "2 d 3 h" or "5 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{round(seconds)} s"
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 48 else f"{hours // 24} d {hours % 24} h"


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
        self._unit, self._total, self._initial, self._done = unit, total, initial, initial
        self._start = self._recorded = time.monotonic()
        self._write()

    def advance(self, units: int = 1) -> None:
        self._bar.update(units)
        self._done += units
        if time.monotonic() - self._recorded >= _RECORD_SECONDS:
            self._write()

    def _write(self) -> None:
        """Record the progress: units done and in all, units per second of this call, time of the record."""
        if (path := _record.get()) is None:
            return
        self._recorded = time.monotonic()
        seconds = self._recorded - self._start
        content = {
            "done": self._done,
            "total": self._total,
            "unit": self._unit,
            "rate": (self._done - self._initial) / seconds if self._done > self._initial and seconds else None,
            "time": time.time(),
        }
        with contextlib.suppress(OSError):  # a full disk must not end the work for want of its record
            write_json(path, content)

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
        self._write()
