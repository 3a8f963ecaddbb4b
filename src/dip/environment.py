"""What a result was made with: device, versions, code revision."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CODE = ("src", "workflow", "Snakefile", "requirements.lock")
_PACKAGES = ("dip", "torch", "numpy", "einops", "timm", "torch-fidelity", "scipy")


def pick_device(local_rank: int | None = None) -> torch.device:
    """The GPU if there is one, else the CPU.

    Args:
        local_rank: Number of a process among several of this machine, which take one GPU each. From then on it is the
            one of streams, CUDA graphs and kernels that are told no device, which would else be the first process's.
    """
    import torch

    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank is None:
        return torch.device("cuda")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


@functools.cache
def device_name(device: torch.device) -> str:
    """What the maker calls it, `NVIDIA H200` or `CPU, AMD EPYC`."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"CPU, {_cpu_name()}"


def describe_environment() -> dict[str, object]:
    """Git revision and versions, for the JSON beside a result."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"git_revision": _git_revision(), "python": platform.python_version(), "packages": packages}


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Revision of the checkout, with `-dirty` where the code differs from it; None outside a checkout.

    Parameters are recorded beside it, so that an edit of params.yaml makes no other code.
    """
    revision = _git("describe", "--always", "--abbrev=12", "--exclude=*")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *_CODE)
    return f"{revision}-dirty" if revision and changed else revision


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
