"""Settings of small and of paper-sized models, standing in for those read from params.yaml."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

HEADS: dict[str, dict[str, Any]] = {
    "none": {},
    "unet": {"depth": 2, "width": 4},
    "mlp": {},
    "attention": {"depth": 2, "width": 16, "num_heads": 2, "context_width": 4},
    "coordinate": {"depth": 2, "width": 8, "expansion": 2, "num_frequencies": 3},
}
PAPER_HEADS: dict[str, dict[str, Any]] = HEADS | {
    "unet": {"depth": 4, "width": 64},
    "attention": {"depth": 2, "width": 64, "num_heads": 4, "context_width": 16},
    "coordinate": {"depth": 4, "width": 64, "expansion": 2, "num_frequencies": 8},
}


def _settings(
    heads: dict[str, dict[str, Any]],
    model: dict[str, Any],
    head: str,
    head_settings: dict[str, Any] | None,
    overrides: dict[str, Any],
) -> SimpleNamespace:
    content = {"initialisation": "he_nonzero"} | heads.get(head, {}) | (head_settings or {})
    defaults = {
        "placement": "post_hoc",
        "intermediate_block": None,
        "head_input": "patch",
        "label_embedding_std": 0.02,
        "qk_norm": True,
    }
    return SimpleNamespace(head=SimpleNamespace(name=head, **content), **(defaults | model | overrides))


@pytest.fixture
def small() -> Callable[..., SimpleNamespace]:
    """Settings of a model of two blocks of 16 channels on patches of 4 x 4 pixels."""

    def make(head: str = "unet", head_settings: dict | None = None, **overrides: Any) -> SimpleNamespace:
        model = {"patch_size": 4, "hidden_size": 16, "depth": 2, "num_heads": 2}
        return _settings(HEADS, model, head, head_settings, overrides)

    return make


@pytest.fixture
def paper() -> Callable[..., SimpleNamespace]:
    """Settings of the paper's XL/16 (Table 4)."""

    def make(head: str = "unet", head_settings: dict | None = None, **overrides: Any) -> SimpleNamespace:
        model = {"patch_size": 16, "hidden_size": 1152, "depth": 26, "num_heads": 16}
        return _settings(PAPER_HEADS, model, head, head_settings, overrides)

    return make
