"""`python -m dip.launch.worker FILE`: one of several processes of a job on this machine, started by torchrun."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of prctl(2): the signal that comes when the parent dies


def _end_with(parent: int) -> None:
    """Have Linux kill this process when its parent dies, for whose store it would else wait for 15 minutes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has died already
        sys.exit(1)


if __name__ == "__main__":
    _end_with(int(os.environ["TORCHRUN_PID"]))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which torchrun ignores
    with Path(sys.argv[1]).open("rb") as file:
        job = pickle.load(file)  # written by the launcher that starts this process
    try:
        job()
    except SystemExit as end:
        if end.code != 128 + signal.SIGTERM:
            raise
        # Stopped as asked, which the launcher finds in the folder; torchrun would call it a failure.
