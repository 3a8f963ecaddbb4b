"""`dip unlock`: after a `kill -9` or a power cut, let Snakemake work in this folder again."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import psutil

from dip.paths import SNAKEMAKE

_log = logging.getLogger(__name__)


def unlock() -> None:
    """Remove Snakemake's lock files if no Snakemake works in the current folder.

    Snakemake's own `--unlock` asks nobody, so the Snakefile calls this before. It looks for a live process first, and
    sees this machine only.

    Raises:
        ValueError: A Snakemake is at work here; its process is named.
    """
    locks = sorted((SNAKEMAKE / "locks").glob("*"))
    if not locks:
        return
    if process := snakemake_at_work():
        raise ValueError(f"Snakemake is at work in this folder (process {process}); wait for it or stop it first")
    for lock in locks:
        lock.unlink(missing_ok=True)
    _log.info("removed the lock of a Snakemake that was killed")


def snakemake_at_work() -> int | None:
    """Process number of another Snakemake in the current folder, on this machine."""
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid():
                continue
            if arguments_of("snakemake", process.cmdline()) is not None and process.cwd() == str(Path.cwd()):
                return process.pid
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return None


def arguments_of(program: str, words: Sequence[str]) -> list[str] | None:
    """What follows a program in a command line: `program`, `python program` or `python -m program`.

    Args:
        program: Its name.
        words: The command line of a process.

    Returns:
        Its arguments, None if another program is called.
    """
    place = 0
    if words and "python" in Path(words[0]).name:
        place = 1
        while place < len(words) and words[place].startswith("-"):  # Python's own, of which two take a value
            place += 2 if words[place] in ("-X", "-W") else 1
    if place < len(words) and Path(words[place]).name == program:
        return list(words[place + 1 :])
    return None
