"""Memory of this process: how much it takes, and how the C library gives it back."""

from __future__ import annotations

import ctypes
import platform
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h of glibc
_PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """Have this process keep what it frees, to use it again.

    glibc gives large blocks back to the kernel when they are freed. A training step on a CPU frees and takes again all
    its activations, and the kernel clears every page anew: a step of a model of DiT-B's size took 21.7 s, and takes
    16.1 s so, with 4 % more memory at its peak (docs/performance.md). Other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # as an unsigned number: never
    library.mallopt(_TOP_PAD, _PAD_BYTES)


def peak_memory(device: torch.device) -> int:
    """Bytes that the tensors of this process took on a GPU at most, or the whole process on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, else kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
