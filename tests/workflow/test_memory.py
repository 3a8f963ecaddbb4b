"""If these fail, a training on a CPU spends a quarter of its time on pages that the kernel clears again and again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
import torch
from dip.memory import keep_freed_memory
def use(): torch.empty(2**24).fill_(1)  # 64 MB
def count():
    for _ in range(20):
        use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        use()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
count()
keep_freed_memory()
count()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again():
    """Without it every use of 64 MB maps them anew; with it only the first."""
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, check=True)
    default, keep = map(int, done.stdout.split())
    assert default > 5 * 30
    assert keep < default / 20
