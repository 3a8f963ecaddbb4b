"""What the tests of compiled models need of the machine."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import pytest

HEADER = Path(sysconfig.get_paths()["include"], "Python.h")

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or not HEADER.exists(),
    reason="on a CPU torch.compile needs g++ and Python's headers (Debian: g++, python3-dev)",
)
