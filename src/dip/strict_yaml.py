"""YAML in which a key that stands twice in one mapping is a mistake, as YAML 1.2 has it.

A key is the text that stands there: `on`, `1.10` and `2026-01-01` are names. Whatever else cannot be used is a mistake
too, with its place: a value that does not fit its tag or that JSON does not have (a date, a set), an alias inside of
what it stands for, and nesting that would end in an error of Python's own.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import yaml

_MOST_LEVELS = 100  # of nesting; params.yaml has about ten
_SHOWN = 40  # characters of a value


def read_yaml(text: str) -> Any:
    """The content of a YAML text.

    Raises:
        ValueError: The text is not YAML, or has one of the mistakes above; the place and the problem in one line.
    """
    try:
        _refuse_deep(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ValueError(one_line(_problem(error, text))) from None


def one_line(text: str) -> str:
    """What may have come from a file, as a message can show it: in one line, without what a terminal would act on."""
    text = " ".join(text.split())
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # libyaml, where it was built
    """Looks for keys that stand twice before `<<` is filled in: after it, a key may rightly be there twice."""

    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        _levels(root, {})
        return root

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            content = super().construct_object(node, deep)
            if isinstance(content, int):
                str(content)  # refuses 0x... of thousands of digits, as JSON would
            if isinstance(content, date | bytes | set):
                raise TypeError(type(content))
            return content
        except yaml.YAMLError:
            raise
        except Exception:  # PyYAML's constructors raise anything over a value that does not fit its tag
            value = node.value if isinstance(node, yaml.ScalarNode) else "..."
            value = f"{value[:_SHOWN]}..." if len(value) > _SHOWN else value
            kind = node.tag.rpartition(":")[2]
            raise _mistake(f"'{value}' cannot be read as {kind}; quote it if it is text", node.start_mark) from None


def _refuse_deep(text: str) -> None:
    """Refuse deep nesting before any node is made: libyaml would overflow its stack, Python's parser would recurse."""
    level = 0
    for event in yaml.parse(text, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > _MOST_LEVELS:
            raise _mistake(f"nested more than {_MOST_LEVELS} levels deep", event.start_mark)


def _levels(node: yaml.Node | None, known: dict[int, int | None]) -> int:
    """Levels of nesting below a node, aliases followed, after a look at all that it holds.

    Args:
        node: An alias is its anchor's node.
        known: Levels by the id of a node; None for those that hold this one.
    """
    if not isinstance(node, yaml.CollectionNode):
        return 0
    if id(node) not in known:
        known[id(node)] = None
        if isinstance(node, yaml.MappingNode):
            _read_keys(node)
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value
        known[id(node)] = 1 + max((_levels(part, known) for part in parts), default=0)
    levels = known[id(node)]
    if levels is None:
        raise _mistake("an alias stands inside of what it is an alias for", node.start_mark)
    if levels > _MOST_LEVELS:
        raise _mistake(f"nested more than {_MOST_LEVELS} levels deep", node.start_mark)
    return levels


def _read_keys(node: yaml.MappingNode) -> None:
    """Make the keys of a mapping texts, and refuse one that stands there twice."""
    seen: set[str] = set()
    for place, (key, value) in enumerate(node.value):
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if key.value in seen:
            raise _mistake(f"the key '{key.value}' stands twice in one mapping", key.start_mark)
        seen.add(key.value)
        # Another node: as an alias, the key's own may be a value elsewhere.
        text = yaml.ScalarNode("tag:yaml.org,2002:str", key.value, key.start_mark, key.end_mark)
        node.value[place] = text, value


def _mistake(problem: str, mark: Any) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def _problem(error: yaml.YAMLError, text: str) -> str:
    """The problem and its place in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    problem = getattr(error, "problem", None) or "cannot be read"
    if "cannot start any token" in problem:
        character = text.splitlines()[mark.line][mark.column]
        tab = "a tab; YAML takes spaces only before a key"
        problem = tab if character == "\t" else f"no value begins with {character}; quote it if it is text"
    start = getattr(error, "context_mark", None)
    if start is not None and "did not find expected ','" in problem:
        # An end that is missing is noticed lines below.
        problem += f" in what begins in line {start.line + 1}; quote text in which : , or brackets stand"
    if "mapping values are not allowed" in problem:
        problem += ": wrong indentation, or a colon in text without quotes"
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
