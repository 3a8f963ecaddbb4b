"""YAML in which a key that stands twice in one mapping is a mistake, as YAML 1.2 has it."""

from __future__ import annotations

from typing import Any

import yaml


def read_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        ValueError: The text is not YAML, or a key stands twice; the place and the problem in one line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(_problem(error)) from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml, where it was built
    """Looks for keys that stand twice before `<<` is filled in: after it, a key may rightly be there twice."""

    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        waiting, known = [root], {id(root)}
        while waiting:
            node = waiting.pop()
            if not isinstance(node, yaml.CollectionNode):
                continue
            if isinstance(node, yaml.MappingNode):
                _refuse_twice(node)
                parts = [part for pair in node.value for part in pair]
            else:
                parts = node.value
            waiting += [part for part in reversed(parts) if id(part) not in known]  # an alias is its anchor's node
            known.update(map(id, parts))
        return root


def _refuse_twice(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{key.value}' stands twice in one mapping", key.start_mark
            )
        seen.add(key.value)


def _problem(error: yaml.YAMLError) -> str:
    """The problem and its place in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', None) or 'cannot be read'}"
