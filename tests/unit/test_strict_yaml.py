"""YAML that cannot be used is one line with its place."""

from __future__ import annotations

import pytest

from dip.strict_yaml import read_yaml


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("a: 1\nb: &q {c: *q}", "line 2, column 4", "an alias stands inside of what it is an alias for"),
        ("a: 1\nb: &q [1, {c: [*q]}]", "line 2, column 4", "an alias stands inside of what it is an alias for"),
        ("a: 1\nb: &q\n  <<: *q", "line 2, column 4", "an alias stands inside of what it is an alias for"),
        ("a: 1\nb: " + "[" * 300 + "]" * 300, "line 2, column 103", "nested more than 100 levels deep"),
        ("a: 1\nb: " + "[" * 300, "line 2, column 103", "nested more than 100 levels deep"),
        # Newer libyaml notices more than 1000 levels itself.
        ("a: 1\nb: " + "[" * 3_000 + "]" * 3_000, "line 2, column 10", "nest"),
        ("a: 1\nb: " + "[" * 100_000, "line 2, column 10", "nest"),
        ("a: &x0 []" + "".join(f"\nb{i}: &x{i} [*x{i - 1}]" for i in range(1, 3_000)), "line 101", "levels deep"),
        ("a: 1\nb:\n\tc: 1", "line 3, column 1", "a tab; YAML takes spaces only before a key"),
        ("a:\n  b: 1\n  \tc: 1", "line 3, column 3", "found a tab character that violates indentation"),
        ("a: 1\nb: @c", "line 2, column 4", "no value begins with @; quote it if it is text"),
        ("a: {b: `c`}", "line 1, column 8", "no value begins with `; quote it if it is text"),
        ("a: {b: C: D}", "line 1, column 9", "in what begins in line 1; quote text in which : , or brackets stand"),
        ('a: {b: "C}\nd: {e: "F, G"}', "line 2, column 9", "in what begins in line 1; quote text"),
        ("a:\n  b: C: D", "line 2, column 7", "wrong indentation, or a colon in text without quotes"),
        ("a: 1\nb: !!bool foo", "line 2, column 4", "'foo' cannot be read as bool"),
        ("a: 1\nb: !!timestamp foo", "line 2, column 4", "'foo' cannot be read as timestamp"),
        ("a: 1\nb: !!timestamp {=: 1}", "line 2, column 4", "expected a scalar node"),
        ("a: 1\nb: 2020-12-31", "line 2, column 4", "'2020-12-31' cannot be read as timestamp; quote it"),
        ("a: 1\nb: 2020-12-31 10:00:00", "line 2, column 4", "cannot be read as timestamp; quote it"),
        ("a: 1\nb: !!set {c}", "line 2, column 4", "'...' cannot be read as set"),
        ("a: 1\nb: !!binary aGVsbG8=", "line 2, column 4", "'aGVsbG8=' cannot be read as binary"),
        ('a: 1\nb: !!int "2\\n\\e[2J"', "line 2, column 4", "'2 \\x1b[2J' cannot be read as int; quote it"),
        ("a: 1\nb: 2020-13-41", "line 2, column 4", "'2020-13-41' cannot be read as timestamp; quote it"),
        ("a: 1\nb: 0x_", "line 2, column 4", "'0x_' cannot be read as int"),
        ("a: 1\nb: !!int ''", "line 2, column 4", "'' cannot be read as int"),
        ("a: 1\nb: !!float x", "line 2, column 4", "'x' cannot be read as float"),
        ("a: 1\nb: " + "9" * 5_000, "line 2, column 4", f"'{'9' * 40}...' cannot be read as int"),
        ("a: 1\nb: 0x" + "f" * 5_000, "line 2, column 4", "cannot be read as int"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_place(text: str, where: str, what: str) -> None:
    """Wrong: a traceback, a crash of the interpreter, or a message that leaves its reader to search the file."""
    with pytest.raises(ValueError) as error:
        read_yaml(text)
    message = str(error.value)
    assert message.startswith(where)
    assert what in message
    assert "\n" not in message


def test_aliases_of_finished_parts_are_followed() -> None:
    """Wrong: anchors and merge keys, with which files are written shorter, would be refused."""
    text = "a: &a {x: 1, y: [2]}\nb: {<<: *a, x: 3}\nc: [*a, *a]"
    part = {"x": 1, "y": [2]}
    assert read_yaml(text) == {"a": part, "b": {"x": 3, "y": [2]}, "c": [part, part]}
    assert read_yaml("a: " + "[" * 99 + "]" * 99) is not None


def test_keys_are_texts() -> None:
    """Wrong: `on` would be True, 1.10 the same as 1.1, and an anchor's value would change with its use as a key."""
    text = "a: &k 7\non: 1\n1.10: 2\n0x10: 3\n2020-12-31: 4\n~: 5\n.inf: 6\n*k : 8"
    assert read_yaml(text) == {"a": 7, "on": 1, "1.10": 2, "0x10": 3, "2020-12-31": 4, "~": 5, ".inf": 6, "7": 8}
