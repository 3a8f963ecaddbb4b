"""`python -m dip.launch.worker FILE`: one of several processes of a job on this machine, started by torchrun."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

if __name__ == "__main__":
    with Path(sys.argv[1]).open("rb") as file:
        pickle.load(file)()  # written by the launcher that starts this process
