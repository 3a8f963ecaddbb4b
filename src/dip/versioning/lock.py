"""DVC's lock on the repository: while DVC moves results into its cache or out of it, nobody else may write them."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

_log = logging.getLogger(__name__)
_LOCK = Path(".dvc") / "tmp" / "lock"
_PATIENCE = 30  # seconds


def wait_for_dvc(patience: float = _PATIENCE) -> None:
    """Wait until no DVC is at work in this folder, unless this process is a stage of it.

    Args:
        patience: Seconds to wait.

    Raises:
        ValueError: It takes longer; what to do is said.
    """
    if "DVC_STAGE" in os.environ:
        return
    end, told = time.monotonic() + patience, False
    while _held():
        if time.monotonic() > end:
            raise ValueError(
                f"DVC is at work in this folder{_holder()}, and still is after {patience:g} seconds: wait for it or "
                "stop it, then run this again"
            )
        if not told:
            _log.warning("DVC is at work in this folder%s; waiting for it", _holder())
            told = True
        time.sleep(0.2)


def _held() -> bool:
    try:
        with _LOCK.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no DVC here
        pass
    return False


def _holder() -> str:
    try:
        return f" (process {int(_LOCK.read_text().split()[0])})"
    except (OSError, ValueError, IndexError):
        return ""
