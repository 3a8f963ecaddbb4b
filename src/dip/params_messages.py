"""What is wrong with a value of params.yaml, in words of YAML: pydantic's are those of Python and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dip.schema.base import NAME_EXPECTED, NAME_PATTERN

_MESSAGES: dict[str, Callable[[dict[str, Any]], str]] = {
    "extra_forbidden": lambda d: "unknown key",
    "missing": lambda d: "missing",
    "union_tag_not_found": lambda d: f"missing {d['ctx']['discriminator']}",
    "union_tag_invalid": lambda d: f"expected one of {d['ctx']['expected_tags']}, not '{d['ctx']['tag']}'",
    "too_short": lambda d: f"expected at least {d['ctx']['min_length']} of them, not {d['ctx']['actual_length']}",
    "too_long": lambda d: f"expected at most {d['ctx']['max_length']} of them, not {d['ctx']['actual_length']}",
}
# What stands in YAML for JSON's arrays and objects.
_EXPECTED = {"list_type": "a list", "tuple_type": "a list", "dict_type": "a mapping", "model_type": "a mapping",
             "model_attributes_type": "a mapping"}  # fmt: skip


def message_of(detail: Any) -> str:
    """What is wrong with a value.

    Args:
        detail: One of the `errors()` of pydantic's `ValidationError`.

    Returns:
        Words of YAML and of this project, without the key, in one line.
    """
    if detail.get("ctx", {}).get("pattern") == NAME_PATTERN:
        return f"{NAME_EXPECTED}, not '{str(detail['input'])[:60]}'"
    if detail["type"] in _MESSAGES:
        return _MESSAGES[detail["type"]](detail)
    kind, value = detail["type"], json.dumps(detail["input"], default=str)[:60]
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, not {value}"
    quote = "; quote it if it is text" if kind == "string_type" and isinstance(detail["input"], int | float) else ""
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, not {value}{quote}"
