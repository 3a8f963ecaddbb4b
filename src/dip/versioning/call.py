"""The call of DVC that this process is part of, if it is one: what it asks for and when it began."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from dip.unlock import arguments_of


@dataclass(frozen=True)
class Call:
    """A `dvc repro` or `dvc exp run` at work.

    Attributes:
        targets: Stages or files that it was given, from this folder and not from that of the call; none: everything.
        began: When it began, in seconds since 1970.
    """

    targets: tuple[str, ...]
    began: float


def current_call() -> Call | None:
    """The innermost call of DVC among the processes above this one."""
    for process in psutil.Process().parents():
        try:
            arguments = arguments_of("dvc", process.cmdline())
            if arguments is not None:
                targets = (os.path.relpath(Path(process.cwd(), target)) for target in _targets(arguments))
                return Call(tuple(targets), process.create_time())
        except psutil.Error:
            continue
    return None


def _targets(arguments: list[str]) -> Iterator[str]:
    from dvc.cli import DvcParserError, parse_args

    try:
        options = parse_args(arguments)
    except (DvcParserError, SystemExit):
        return
    yield from getattr(options, "targets", None) or ()
