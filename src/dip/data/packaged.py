"""Photographs that ship inside scikit-image and scikit-learn, and their copies in data/photographs.

The copies are what everything reads, so that a changed photograph is a changed file of this repository's data.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dip.files import atomic_copy, sha256
from dip.paths import photograph_copy

_SKIMAGE, _SKLEARN = ("skimage", "data"), ("sklearn", "datasets/images")

# Package, folder and file by name; other names of skimage.data are downloaded when they are asked for.
_FILES: dict[str, tuple[str, str, str]] = {
    **{
        name: (*_SKIMAGE, f"{name}.png")
        for name in ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "moon")
    },
    **{name: (*_SKIMAGE, f"{name}.jpg") for name in ("hubble_deep_field", "retina", "rocket")},
    "cat": (*_SKIMAGE, "chelsea.png"),
    "immunohistochemistry": (*_SKIMAGE, "ihc.png"),
    "china": (*_SKLEARN, "china.jpg"),
    "flower": (*_SKLEARN, "flower.jpg"),
}
NAMES = tuple(sorted(_FILES))


def copy_of(name: str) -> Path:
    """Where the copy of a photograph lies.

    Raises:
        ValueError: There is no such photograph.
    """
    if name not in _FILES:
        raise ValueError(f"there is no photograph '{name}'; there are {', '.join(NAMES)}")
    return photograph_copy(name + Path(_FILES[name][2]).suffix)


def packaged(name: str) -> Path:
    """The photograph's file in its package.

    Raises:
        ValueError: There is no such photograph, or its file is missing.
    """
    copy_of(name)
    package, folder, file = _FILES[name]
    spec = importlib.util.find_spec(package)
    path = Path(*(spec.submodule_search_locations or ()) if spec else ()) / folder / file
    if not path.is_file():
        raise ValueError(
            f"photograph '{name}': {path} is missing; reinstall scikit-image and scikit-learn with `make setup`"
        )
    return path


def checksum(name: str) -> str:
    """SHA-256 of the photograph's file in its package; errors as in `packaged`."""
    return sha256(packaged(name))


def copy_photograph(name: str) -> None:
    """Copy a photograph from its package to data/photographs; errors as in `packaged`."""
    atomic_copy(packaged(name), copy_of(name))
