"""What is computed in: bfloat16 where the device has instructions for it, float32 elsewhere."""

from __future__ import annotations

import functools
import logging

import torch

_log = logging.getLogger(__name__)


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products and convolutions.

    Args:
        precision: "bf16" or "fp32", as in params.yaml.
        device: Where it is computed. Without instructions for bfloat16 (a CPU with AVX2 only, a GPU older than
            Ampere) "bf16" is float32 too: emulated bfloat16 took 6 times as long on such a CPU, and is less exact.

    Returns:
        torch.bfloat16 or torch.float32.
    """
    return torch.bfloat16 if precision == "bf16" and _has_bfloat16(device.type) else torch.float32


def dtype_name(precision: str, device: torch.device) -> str:
    """`compute_dtype` for the JSON beside a result, "bfloat16" or "float32"."""
    return str(compute_dtype(precision, device)).removeprefix("torch.")


def autocast(precision: str, device: torch.device, *, keep_casts: bool = True) -> torch.autocast:
    """Context in which matrix products and convolutions are computed in `compute_dtype`.

    Args:
        precision: "bf16" or "fp32", as in params.yaml.
        device: Where it is computed.
        keep_casts: Cast a weight once for the whole context. A CUDA graph must not use what is freed after it.
    """
    enabled = compute_dtype(precision, device) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=keep_casts)


@functools.cache
def _has_bfloat16(device_type: str) -> bool:
    """Whether this machine's GPU or CPU multiplies bfloat16 natively; says so once if not."""
    if device_type == "cuda":
        found = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        names = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # x86, x86, Arm, Arm
        found = any(torch.cpu.get_capabilities().get(name, False) for name in names)
    if not found:
        _log.info("this %s has no instructions for bfloat16; computing in float32", device_type.upper())
    return found
