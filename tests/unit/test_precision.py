"""What is computed in on machines with and without instructions for bfloat16."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from dip import precision
from dip.precision import autocast, compute_dtype, dtype_name

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    precision._has_bfloat16.cache_clear()
    yield
    precision._has_bfloat16.cache_clear()


def machine(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize("capability", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bf16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, capability: str) -> None:
    """Wrong: a processor's fast path would stay unused."""
    machine(monkeypatch, **{capability: True})
    assert compute_dtype("bf16", CPU) == torch.bfloat16
    assert compute_dtype("fp32", CPU) == torch.float32
    with autocast("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_float32_where_bfloat16_is_emulated(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Wrong: on a laptop without such instructions the demo would take hours, or nobody would know what was done."""
    machine(monkeypatch, avx2=True, avx512_f=True)
    with caplog.at_level("INFO"):
        assert compute_dtype("bf16", CPU) == compute_dtype("bf16", CPU) == torch.float32
    assert dtype_name("bf16", CPU) == "float32"
    assert caplog.text.count("this CPU has no instructions for bfloat16; computing in float32") == 1
    with autocast("bf16", CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_casts_are_kept_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a CUDA graph would read a weight's copy that is freed when the context ends."""
    monkeypatch.setattr("dip.precision._has_bfloat16", lambda device_type: True)
    for keep in (True, False):
        with autocast("bf16", CPU, keep_casts=keep):
            assert torch.is_autocast_cache_enabled() == keep
