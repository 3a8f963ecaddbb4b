"""The call of DVC that this process is part of, if it is one: what it asks for and when it began."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from dip.unlock import arguments_of


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
        arguments = arguments_of("dvc", words)
        if arguments is not None:
            return Call(tuple(_targets(arguments)), began)
    return None


def _targets(arguments: list[str]) -> Iterator[str]:
    from dvc.cli import DvcParserError, parse_args

    try:
        options = parse_args(arguments)
    except (DvcParserError, SystemExit):
        return
    yield from getattr(options, "targets", None) or ()
