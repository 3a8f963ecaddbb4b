"""`dip unlock`: after a `kill -9` or a power cut, let Snakemake work in this folder again."""

from __future__ import annotations

import logging
from pathlib import Path

import psutil

_log = logging.getLogger(__name__)
_LOCKS = Path(".snakemake") / "locks"


def unlock() -> None:
    """Remove Snakemake's lock files if no Snakemake works in the current folder.

    Snakemake's own `--unlock` asks nobody; this looks for a live process first. It sees this machine only.

    Raises:
        ValueError: A Snakemake is at work here; its process is named.
    """
    locks = sorted(_LOCKS.glob("*")) if _LOCKS.is_dir() else []
    if not locks:
        return
    if process := snakemake_at_work():
        raise ValueError(f"Snakemake is at work in this folder (process {process}); wait for it or stop it first")
    for lock in locks:
        lock.unlink(missing_ok=True)
    _log.info("removed the lock of a Snakemake that was killed")


def snakemake_at_work() -> int | None:
    """Process number of a Snakemake in the current folder, on this machine."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if any(Path(word).name == "snakemake" for word in words[:2]) and process.cwd() == str(Path.cwd()):
                return process.pid
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return None
