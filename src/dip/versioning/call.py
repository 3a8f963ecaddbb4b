"""The call of DVC that this process is part of, if it is one: what it asks for and when it began."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Call:
    """A `dvc repro` or `dvc exp run` at work.

    Attributes:
        targets: Stages or files that it was given; none: everything.
        began: When it began, in seconds since 1970.
    """

    targets: tuple[str, ...]
    began: float


def current_call() -> Call | None:
    """The innermost call of DVC among the processes above this one."""
    for process in psutil.Process().parents():
        try:
            words, began = process.cmdline(), process.create_time()
        except psutil.Error:
            continue
        arguments = _arguments(words)
        if arguments is not None:
            return Call(tuple(_targets(arguments)), began)
    return None


def _arguments(words: list[str]) -> list[str] | None:
    """What follows `dvc` or `python -m dvc` in a command line."""
    for place, word in enumerate(words[:3]):
        if Path(word).name == "dvc" and (place == 0 or words[place - 1] == "-m" or "python" in words[0]):
            return words[place + 1 :]
    return None


def _targets(arguments: list[str]) -> Iterator[str]:
    from dvc.cli import DvcParserError, parse_args

    try:
        options = parse_args(arguments)
    except (DvcParserError, SystemExit):
        return
    yield from getattr(options, "targets", None) or ()
