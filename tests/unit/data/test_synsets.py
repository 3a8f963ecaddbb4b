"""Names of ImageNet's classes."""

from __future__ import annotations

import importlib.util

import pytest

from dip.data.synsets import readable_names


def test_synsets_have_names() -> None:
    """Wrong: galleries would show numbers, or the names of other classes."""
    assert readable_names(["n02110341", "n01440764", "n15075141"]) == ["dalmatian", "tench", "toilet tissue"]
    assert readable_names(["tench, Tinca tinca", "n99999999"]) == ["tench", "n99999999"]


def test_without_timm_classes_keep_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: data could not be prepared where only PyTorch is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert readable_names(["n01440764"]) == ["n01440764"]
