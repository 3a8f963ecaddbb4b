"""Which keys a mapping of params.yaml may have, for messages about one that it may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter


def keys_at(schema: TypeAdapter[Any], location: Sequence[str | int]) -> list[str]:
    """The keys of one mapping of a schema.

    Args:
        schema: The whole.
        location: Where the mapping is, as pydantic's errors have it: below a tagged union stands the tag.

    Returns:
        The keys in the schema's order; empty where the mapping takes any.
    """
    document = schema.json_schema()
    node = document
    for key in location:
        node = _below(document, node, key)
    return list(_resolved(document, node).get("properties", {}))


def _below(document: dict[str, Any], node: dict[str, Any], key: str | int) -> dict[str, Any]:
    """What stands under a key, an index or a tag of a node; an empty node where anything may."""
    node = _resolved(document, node)
    if key in node.get("properties", {}):
        return node["properties"][key]
    if key in (tags := node.get("discriminator", {}).get("mapping", {})):
        return {"$ref": tags[key]}
    for rest in ("items", "additionalProperties"):
        if isinstance(node.get(rest), dict):
            return node[rest]
    return {}


def _resolved(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """A node in the place of a reference to it, and of the choice between it and null."""
    if "$ref" in node:
        return _resolved(document, document["$defs"][node["$ref"].rpartition("/")[2]])
    choices = [choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"]
    return _resolved(document, choices[0]) if len(choices) == 1 else node
