"""`dip ablation`: write a new run, and its place in tables and figures, into params.yaml as a person would.

The file is edited as text, so that comments, order and layout stay; it is replaced only if the result is right and
nothing else has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from dip.files import atomic_write
from dip.params import ParamsError, known, parse, read_text
from dip.schema import Params
from dip.schema.base import NAME_EXPECTED, NAME_PATTERN
from dip.strict_yaml import read_yaml

_FILE = Path("params.yaml")
_NOT_UNDERSTOOD = "params.yaml: its layout is not understood; add the lines by hand"


def add_run(
    base: str,
    name: str,
    settings: Sequence[str],
    *,
    label: str | None = None,
    tables: Sequence[str] = (),
    figures: Sequence[str] = (),
) -> Params:
    """Add a run that inherits from another one, and takes its weights if nothing differs that they depend on.

    Args:
        base: The run to inherit from.
        name: Of the new run.
        settings: What differs, each as `model.head.depth=2`; values are YAML.
        label: How tables and figures name it; the name and what differs if not given.
        tables: Where it is shown, each as `table2` or, where the base stands in several sections, `table2:section`.
        figures: The same, as `figure10:title of a panel`.

    Returns:
        The new params.yaml, resolved.

    Raises:
        ValueError: There is no such run, table, section, figure or panel, a setting cannot be read, or the result is
            not valid. The file is as it was.
    """
    text = read_text(_FILE)
    before = parse(text, _FILE)
    known(before, "runs", base)
    if name in before.runs:
        raise ParamsError(f"params.yaml: runs.{name}: there is such a run already; give the new one another --name")
    if not re.fullmatch(NAME_PATTERN, name):
        raise ParamsError(f"--name {name}: {NAME_EXPECTED}")
    if label is not None and not label.strip():
        raise ParamsError(f"--label '{label}': expected some text")
    start: dict[str, Any] = {"base": base}
    if before.runs[base].checkpoint is None and all(re.match(r"(sampling|evaluation)\b", key) for key in settings):
        start = {"checkpoint": {"run": base}}
    entry = start | {"label": f"{before.runs[base].label}, {', '.join(settings)}"}
    entry |= _nested(settings, dict(start) if label is None else {**start, "label": label})
    study, tree = before.runs[base].study, _composed(text)
    edits = [_entry(text, tree, base, name, entry)]
    for section, places in (("tables", tables), ("figures", figures)):
        for place in places:
            edits += _shown(text, tree, section, study, place, base, name)
    text = _edited(text, edits)
    after = parse(text, _FILE)
    _check(before, after, name, tables, figures)
    line_break = "\r\n" if b"\r\n" in _FILE.read_bytes() else "\n"
    with atomic_write(_FILE) as file:
        file.write(text.replace("\n", line_break))
    return after


def places_of(params: Params, run: str) -> list[str]:
    """Where a run is shown, each as `table2: section` or `figure10: title of a panel`."""
    study, places = params.runs[run].study, list[str]()
    for name, by_study in params.tables.items():
        if study in by_study:
            places += [f"{name}: {title}" for title, runs in by_study[study].sections.items() if run in runs]
    for name, figures in params.figures.items():
        for panel in getattr(figures.get(study), "panels", ()):
            if any(run in runs for runs in panel.series.values()):
                places.append(f"{name}: {panel.title}")
    return list(dict.fromkeys(places))


Edit = tuple[int, str]  # an index of the text, and what is put there


def _nested(settings: Sequence[str], tree: dict[str, Any]) -> dict[str, Any]:
    """A tree with settings added to it, none of which may have a value already."""
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not all(part.isidentifier() for part in key.split(".")):
            raise ValueError(f"--set {setting}: expected key=value, model.head.depth=2 for example")
        *above, last = key.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ValueError(f"--set {setting}: {part} has got a value already")
        if last in place:
            raise ValueError(f"--set {setting}: {last} has got a value already")
        try:
            place[last] = read_yaml(value)
        except ValueError as error:
            raise ValueError(f"--set {setting}: the value is not YAML: {error}") from None
    return tree


def _composed(text: str) -> Any:
    """The nodes of the text with their places, by PyYAML's own parser, which reads fewer layouts than libyaml does."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        raise ValueError(_NOT_UNDERSTOOD) from None


def _entry(text: str, tree: Any, base: str, name: str, entry: dict[str, Any]) -> Edit:
    """The lines of the new run, below those of the base."""
    runs = _get(tree, "runs")
    if runs.flow_style or (value := _get(runs, base)) is None:
        raise ValueError(_NOT_UNDERSTOOD)
    indent = " " * runs.value[0][0].start_mark.column
    lines = [f"{indent}{name}:"]
    lines += [f"{indent}  {key}: {_inline(value)}" for key, value in entry.items()]
    return _end_of_line(text, value), "".join(f"\n{line}" for line in lines)


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _shown(text: str, tree: Any, section: str, study: str, place: str, base: str, name: str) -> Iterator[Edit]:
    """Put the new run after the base wherever a table's section or a figure's panel lists it."""
    entry, _, where = place.partition(":")
    by_study = _get(_get(tree, section), entry)
    if by_study is None or (shown := _get(by_study, study)) is None:
        raise ValueError(f"params.yaml: {section}.{entry}.{study}: there is no such entry")
    lists: dict[str, list[yaml.SequenceNode]] = {}
    if section == "tables":
        for key, runs in getattr(_get(shown, "sections"), "value", ()):
            lists[key.value] = [runs]
    else:
        for panel in getattr(_get(shown, "panels"), "value", ()):
            series = getattr(_get(panel, "series"), "value", ())
            lists.setdefault(getattr(_get(panel, "title"), "value", ""), []).extend(runs for _, runs in series)
    lists = {title: [runs for runs in found if _place_of(runs, base) is not None] for title, found in lists.items()}
    titles = [title for title, found in lists.items() if found and where in ("", title)]
    what = "section" if section == "tables" else "panel"
    if not titles:
        raise ValueError(
            f"params.yaml: {section}.{entry}.{study}: no {what}{f' {where!r}' if where else ''} of its own lists "
            f"'{base}'; name the new run there by hand"
        )
    if len({frozenset(map(id, lists[title])) for title in titles}) > 1:  # an alias is its anchor's node
        raise ValueError(
            f"params.yaml: {section}.{entry}.{study}: '{base}' is listed in several {what}s; choose one, "
            + " or ".join(f'--{section[:-1]} "{entry}:{title}"' for title in titles)
        )
    for runs in {id(runs): runs for runs in lists[titles[0]]}.values():
        item = runs.value[_place_of(runs, base) or 0]
        if runs.flow_style:
            yield item.end_mark.index, f", {name}"
        else:
            start = text.rfind("\n", 0, item.start_mark.index)  # of the line, whose dash stands where it does
            yield _end_of_line(text, item), f"{text[start : item.start_mark.index]}{name}"


def _place_of(runs: yaml.SequenceNode, base: str) -> int | None:
    return next((place for place, item in enumerate(runs.value) if item.value == base), None)


def _get(node: Any, key: str) -> Any:
    """The value of a key of a mapping, None if it has no such key."""
    return next((value for found, value in getattr(node, "value", ()) if found.value == key), None)


def _end_of_line(text: str, node: yaml.Node) -> int:
    """Where the last line of a value ends; PyYAML's own end of a block lies behind comments that follow it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    end = text.find("\n", len(text[: node.end_mark.index].rstrip()))  # a text of several lines ends in a new one
    return len(text) if end < 0 else end


def _edited(text: str, edits: Sequence[Edit]) -> str:
    for place, insertion in sorted(edits, reverse=True):
        text = text[:place] + insertion + text[place:]
    return text


def _check(before: Params, after: Params, name: str, tables: Sequence[str], figures: Sequence[str]) -> None:
    """Refuse an edit that changes more than it should, as one of a list that other tables have by an alias."""
    asked = {"runs": {name}, "tables": _entries(tables), "figures": _entries(figures)}
    for section in ("datasets", "evaluation", *asked):
        then, now = getattr(before, section), getattr(after, section)
        if {entry for entry in {*then, *now} if then.get(entry) != now.get(entry)} - asked.get(section, set()):
            raise ValueError(_NOT_UNDERSTOOD)


def _entries(places: Sequence[str]) -> set[str]:
    return {place.partition(":")[0] for place in places}
