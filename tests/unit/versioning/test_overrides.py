"""The experiments that the documentation shows, as DVC applies them to params.yaml."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.hydra import apply_overrides

from dip import params
from dip.schema import Params
from dip.strict_yaml import read_yaml

REPOSITORY = Path(__file__).parents[3]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
OVERRIDES = sorted({found for page in PAGES for found in re.findall(r"-S ([^\s`]+=[^\s`]+)", page.read_text())})


@pytest.fixture(scope="module")
def shipped() -> Params:
    return params.load(REPOSITORY / "params.yaml")


def test_the_documentation_shows_some() -> None:
    """Wrong: the test below would have nothing to check."""
    assert len(OVERRIDES) > 2


@pytest.fixture(scope="module")
def overridden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Params]:
    """The shipped params.yaml with all of them applied, which takes DVC a second however many they are."""
    path = tmp_path_factory.mktemp("overridden") / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", path)
    apply_overrides(path, OVERRIDES)
    return read_yaml(path.read_text()), params.load(path)


@pytest.mark.parametrize("override", OVERRIDES)
def test_override_reaches_the_key_it_names(overridden: tuple[Any, Params], shipped: Params, override: str) -> None:
    """Wrong: `dvc exp run -S` would refuse what the documentation shows, or change nothing, or something else."""
    found, after = overridden
    key, value = override.removeprefix("+").split("=")
    for part in key.split("."):
        found = found[part]
    assert found == type(found)(value)
    section, *rest = key.split(".")
    if section == "runs":
        assert after.runs[rest[0]] != shipped.runs[rest[0]]
    else:
        assert getattr(after, section) != getattr(shipped, section)
