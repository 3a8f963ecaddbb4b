"""The experiments that the documentation shows, as DVC applies them to params.yaml."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from dip import params

REPOSITORY = Path(__file__).parents[3]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
OVERRIDES = sorted({found for page in PAGES for found in re.findall(r"-S ([^\s`]+=[^\s`]+)", page.read_text())})


def test_the_documentation_shows_some() -> None:
    """Wrong: the test below would have nothing to check."""
    assert len(OVERRIDES) > 2


@pytest.mark.parametrize("override", OVERRIDES)
def test_overrides_can_be_applied(tmp_path: Path, override: str) -> None:
    """Wrong: `dvc exp run -S` would refuse what the documentation shows, or change nothing."""
    changed = tmp_path / "params.yaml"
    shutil.copy(REPOSITORY / "params.yaml", changed)
    apply_overrides(changed, [override])
    before, after = params.load(REPOSITORY / "params.yaml"), params.load(changed)
    assert (after.study, after.runs) != (before.study, before.runs)
