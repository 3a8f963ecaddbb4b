"""Names that people read for classes, ImageNet's above all."""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path

_LIST = "data/_info/imagenet_synset_to_lemma.txt"  # of timm: synset, tab, names


def readable_names(classes: Sequence[str]) -> list[str]:
    """The first of the names of every class.

    Args:
        classes: Synsets (`n01440764`), named by the list that comes with timm, or names ("tench, Tinca tinca").

    Returns:
        A name for each; a synset that the list lacks keeps its number, and so do all where timm is not installed.
    """
    known = _names_of_synsets()
    return [known.get(name, name).split(",")[0] for name in classes]


def same_class(one: str, other: str) -> bool:
    """Whether two names are those of one class; only the first of several names is compared."""
    first, second = (name.split(",")[0].strip().lower().replace("_", " ") for name in (one, other))
    return first == second


def _names_of_synsets() -> dict[str, str]:
    """The list of timm, read without importing timm and PyTorch with it."""
    timm = importlib.util.find_spec("timm")
    path = Path(timm.origin).parent / _LIST if timm is not None and timm.origin else None
    if path is None or not path.is_file():
        return {}
    with path.open(encoding="utf-8") as file:
        return dict(csv.reader(file, delimiter="\t"))
