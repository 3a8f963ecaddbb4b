"""The tree of params.yaml: each value with the keys under which it stands in the file, whoever inherits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dip.checks import Keys


class Leaf:
    """A value and the keys under which it stands in the file."""

    def __init__(self, value: Any, place: Keys) -> None:
        self.value = value
        self.place = place


class Branch(dict[str, Any]):
    """A mapping of leaves and branches, and the keys under which it and what it first builds on stand in the file."""

    def __init__(self, items: Mapping[str, Any], place: Keys, root: Keys | None = None) -> None:
        super().__init__(items)
        self.place = place
        self.root = place if root is None else root


def tree_of(value: Any, keys: Keys) -> Branch | Leaf:
    """What a YAML file has under some keys, as a tree."""
    if isinstance(value, Mapping):
        return Branch({key: tree_of(item, (*keys, key)) for key, item in value.items()}, keys)
    return Leaf(value, keys)


def plain(tree: Branch | Leaf) -> Any:
    """A tree as the file has it, without places."""
    if isinstance(tree, Branch):
        return {key: plain(item) for key, item in tree.items()}
    return tree.value


def merge(base: Any, over: Any) -> Any:
    """`over` on top of `base`, key by key; a mapping of another `name` or `kind` replaces the base's."""
    if not (isinstance(base, Branch) and isinstance(over, Branch)):
        return over
    for tag in ("name", "kind"):
        if tag in over and tag in base and plain(over[tag]) != plain(base[tag]):
            return over
    merged = {key: merge(base[key], over[key]) if key in base and key in over else item
              for key, item in {**base, **over}.items()}  # fmt: skip
    return Branch(merged, over.place, base.root)


def origin(tree: Any, location: Keys, *, missing: bool = False, tagged: bool = False) -> Keys:
    """Where in the file the value at `location` of a merged tree stands, or should if it is missing.

    A `tagged` location, one of pydantic, has the chosen kind of a union, which is no key of the file.
    """
    at_tag = tagged
    for index, key in enumerate(location):
        if isinstance(tree, Leaf):
            return (*tree.place, *location[index:])
        if at_tag and any(tag in tree and plain(tree[tag]) == key for tag in ("name", "kind")):
            at_tag = False
        elif key in tree:
            tree, at_tag = tree[str(key)], tagged
        else:
            return (*(tree.root if missing else tree.place), *location[index:])
    keys: Keys = tree.place
    return keys
