"""A hint for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def nearest(name: Any, names: Iterable[str]) -> str:
    """The end of a message about a name that is not known.

    Args:
        name: What was found.
        names: What would do.

    Returns:
        The nearest one as a question, or else the first ten that there are.
    """
    names = list(names)
    if near := difflib.get_close_matches(str(name), names, n=1):
        return f"; did you mean '{near[0]}'?"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"; there are {', '.join(names[:10]) or 'none'}{more}"
