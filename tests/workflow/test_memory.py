"""If these fail, a training on a CPU spends a quarter of its time on pages that the kernel clears again and again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from dip.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def use(): torch.empty(2**24).fill_(1)  # 64 MB
for _ in range(20):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again():
    """Without it every use of 64 MB maps them anew; with it only the first."""
    faults = {
        how: int(subprocess.run([sys.executable, "-c", COUNT, how], capture_output=True, check=True).stdout)
        for how in ("keep", "default")
    }
    assert faults["default"] > 5 * 30
    assert faults["keep"] < faults["default"] / 20
