"""The only reader of params.yaml.

`load` turns the file into the frozen objects of `dip.schema`, or raises `ParamsError` with one line per
mistake, each with the path of the key as it stands in the file. An entry that says `base: other` inherits
from `other` of its section, key by key; a mapping whose `name` or `kind` differs from the inherited one
replaces it whole.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from dip.checks import Keys, Mistake, run_mistakes, section_mistakes
from dip.nearest import nearest
from dip.params_messages import message_of
from dip.params_tree import Branch, merge, origin, plain, tree_of
from dip.report_checks import report_mistakes
from dip.schema import Checkpoint, Dataset, Evaluation, Figure, Model, Params, Run, Sampling, Study, Table, Training
from dip.schema.keys import keys_at
from dip.strict_yaml import one_line, read_yaml

# Parts of a run that build on an entry of a section with `base:`: that section, and what its entries are.
_PRESETS: dict[str, tuple[str, type[BaseModel]]] = {
    "model": ("models", Model),
    "training": ("training", Training),
    "sampling": ("sampling", Sampling),
}
_SECTIONS = (
    "study",
    "code_version",
    "studies",
    "datasets",
    "models",
    "training",
    "sampling",
    "evaluation",
    "runs",
    "tables",
    "figures",
)
_RUN_KEYS = ("base", "study", "label", "dataset", "model", "training", "sampling", "evaluation", "checkpoint")
_NOUNS = {
    "studies": "study",
    "datasets": "dataset",
    "evaluation": "evaluator",
    "runs": "run",
    "tables": "table",
    "figures": "figure",
}


class ParamsError(ValueError):
    """params.yaml cannot be used; the message has one line per mistake."""


def load(path: str | Path = "params.yaml", study: str | None = None) -> Params:
    """Read, resolve and check params.yaml.

    Args:
        path: The file.
        study: The study to make, if not the file's `study`.

    Raises:
        ParamsError: The file is missing, is not YAML, or has mistakes; every one is named with its key.
    """
    return parse(read_text(path), path, study)


def read_text(path: str | Path = "params.yaml") -> str:
    """The text of params.yaml.

    Raises:
        ParamsError: The file is missing or is no text.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}); run from the repository's folder") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ParamsError(f"{path}: not UTF-8 text (line {line}: {error.reason}); save it as UTF-8") from None


def parse(text: str, path: str | Path = "params.yaml", study: str | None = None) -> Params:
    """Resolve and check the text of a params.yaml.

    Args:
        text: The text.
        path: The file, for messages.
        study: As in `load`.

    Raises:
        ParamsError: The text is not YAML, or has mistakes; every one is named with its key.
    """
    try:
        content = read_yaml(text)
    except ValueError as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path}: expected a mapping with the keys {', '.join(_SECTIONS)}")
    if study is not None:
        content["study"] = study
    tree = tree_of(content, ())
    assert isinstance(tree, Branch)
    mistakes, params = _Reader(tree).read()
    if mistakes:
        lines = (f"{path}: {'.'.join(map(str, keys))}: {what}" for keys, what in mistakes)
        raise ParamsError("\n".join(dict.fromkeys(map(one_line, lines))))
    assert params is not None
    return params


class _Reader:
    """One pass over the file: collects every mistake, then builds `Params` if there was none."""

    def __init__(self, tree: Branch) -> None:
        self.tree = tree
        self.mistakes: list[Mistake] = []
        self.unfit: list[Mistake] = []  # values of runs that are fine by themselves and do not go together
        self.code_version = 0

    def read(self) -> tuple[list[Mistake], Params | None]:
        for key in self.tree:
            if key not in _SECTIONS:
                self.mistakes.append(((key,), f"unknown key; the sections are {', '.join(_SECTIONS)}"))
        for key in _SECTIONS:
            if key not in self.tree:
                self.mistakes.append(((key,), "missing"))
            elif key not in ("study", "code_version") and not isinstance(self.tree[key], Branch):
                self.mistakes.append(((key,), "expected a mapping of names to entries"))
        if self.mistakes:
            return self.mistakes, None
        self.code_version = self._valid(int, plain(self.tree["code_version"]), self.tree["code_version"]) or 0
        studies = self._section("studies", Study)
        datasets = self._section("datasets", Dataset)
        evaluation = self._section("evaluation", Evaluation)
        for section, schema in _PRESETS.values():
            self._section(section, schema)
        runs = {name: run for name in self.tree["runs"] if (run := self._run(name, datasets, evaluation))}
        tables, figures = self._per_study("tables", Table), self._per_study("figures", Figure)
        self.mistakes += self._placed(self.unfit)
        if self.mistakes:
            return self.mistakes, None
        params = self._valid(
            Params,
            {"study": plain(self.tree["study"]), "code_version": self.code_version,
             "studies": studies, "datasets": datasets, "evaluation": evaluation, "runs": runs,
             "tables": tables, "figures": figures},
            self.tree,
        )  # fmt: skip
        if params is not None:
            self.mistakes += self._placed((*section_mistakes(params), *report_mistakes(params)))
        return self.mistakes, params

    def _placed(self, found: Iterable[Mistake]) -> Iterator[Mistake]:
        """Mistakes of entries where their values stand in the file, and for which entries they are wrong there."""
        entries: dict[Mistake, list[Keys]] = {}
        for keys, what in found:
            entries.setdefault((self._place(keys), what), []).append(keys[:2])
        for (place, what), wrong in entries.items():
            if place[:2] in wrong:
                yield place, what
            else:
                more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
                yield place, f"{what} (inherited by {'.'.join(map(str, wrong[0]))}{more})"

    def _place(self, keys: Keys) -> Keys:
        """Where in the file a value of an entry stands, which may be inherited."""
        if len(keys) < 3 or keys[0] not in ("datasets", "evaluation", "runs"):
            return keys
        return origin(self._inherit(str(keys[0]), str(keys[1])), keys[2:])

    def _section(self, section: str, schema: Any) -> dict[str, Any]:
        entries = {}
        for name in self.tree[section]:
            if not name.strip():
                self.mistakes.append(((section, name), f"expected a name, not '{name}'"))
            tree = self._inherit(section, name)
            if tree is not None and (entry := self._valid(schema, plain(tree), tree)) is not None:
                entries[name] = entry
        return entries

    def _per_study(self, section: str, schema: Any) -> dict[str, dict[str, Any]]:
        """Tables and figures: name, then study, then the entry."""
        entries: dict[str, dict[str, Any]] = {}
        for name, by_study in self.tree[section].items():
            entries[name] = {}
            if not isinstance(by_study, Branch):
                self.mistakes.append(((section, name), "expected a mapping of studies to entries"))
                continue
            if unknown := [study for study in by_study if study not in self.tree["studies"]]:
                hint = nearest(unknown[0], self.tree["studies"])
                self.mistakes.append(((section, name, unknown[0]), f"there is no study '{unknown[0]}'{hint}"))
                continue
            for study, tree in by_study.items():
                if (entry := self._valid(schema, plain(tree), tree)) is not None:
                    entries[name][study] = entry
        return entries

    @functools.cache  # noqa: B019 - a reader lives for one call of `load`
    def _inherit(self, section: str, name: str, users: tuple[str, ...] = ()) -> Branch | None:
        """The entry with all that it inherits, without its `base`; `users` are those that inherit from it."""
        tree = self.tree[section][name]
        if not isinstance(tree, Branch):
            self.mistakes.append(((section, name), "expected a mapping"))
            return None
        base, where = _base(section, tree)
        return _own(tree) if base is None else self._upon(section, base, where, _own(tree), (*users, name))

    def _upon(self, section: str, base: Any, where: Keys, own: Branch, users: tuple[str, ...]) -> Branch | None:
        """`own` on top of the entry of a section that it is based on; `where` that stands, for messages."""
        if not isinstance(base, str) or base not in self.tree[section]:
            self.mistakes.append((where, f"there is no '{base}' under {section}{nearest(base, self.tree[section])}"))
            return None
        if base in users:
            self.mistakes.append((where, f"'{base}' inherits from itself"))
            return None
        inherited = self._inherit(section, base, users)
        if inherited is None:
            return None
        # A label names one run, not those that build on it.
        rest = {key: item for key, item in inherited.items() if key != "label"}
        merged: Branch = merge(Branch(rest, inherited.place, inherited.root), own)
        return merged

    def _run(self, name: str, datasets: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Run | None:
        tree = self._inherit("runs", name)
        if tree is None:
            return None
        known, parts = True, dict[str, Any]()
        for key in tree:
            if key not in _RUN_KEYS:
                self.mistakes.append((tree[key].place, f"unknown key; a run has {', '.join(_RUN_KEYS)}"))
                known = False
        if "checkpoint" in tree and (checkpoint := plain(tree["checkpoint"])) is not None:
            parts["checkpoint"] = self._valid(Checkpoint, checkpoint, tree["checkpoint"])
            if parts["checkpoint"] is None:
                return None
        missing = [key for key in ("study", "dataset", *_PRESETS, "evaluation") if key not in tree]
        if len(missing) > 1:
            if tree.root == ("runs", name):  # those that inherit from it lack no more than it does
                self.mistakes.append((tree.root, f"has no {', '.join(missing)}, and no `base:` of a run that has them"))
            return None
        if "study" not in tree:
            self.mistakes.append(((*tree.root, "study"), "missing"))
            known = False
        for preset, (section, schema) in _PRESETS.items():
            merged = self._preset(preset, section, tree)
            if merged is None:
                known = False
                continue
            parts[preset] = self._valid(schema, plain(merged), merged)
            tree[preset] = merged
            known &= parts[preset] is not None
        for key, entries in (("dataset", datasets), ("evaluation", evaluation)):
            chosen = plain(tree[key]) if key in tree else None
            section = "datasets" if key == "dataset" else key
            if not isinstance(chosen, str) or chosen not in self.tree[section]:
                where = tree[key].place if key in tree else (*tree.root, key)
                self.mistakes.append((where, f"expected one of {section}: {', '.join(self.tree[section])}"))
            elif chosen in entries:
                parts[key], parts[f"{key}_name"] = entries[chosen], chosen
            known &= key in parts
        if not known:
            return None
        content = {
            "name": name,
            "label": plain(tree["label"]) if "label" in tree else name,
            "study": plain(tree["study"]),
            "code_version": self.code_version,
            "num_samples": parts["evaluation"].num_samples,
            **parts,
        }
        run: Run | None = self._valid(Run, content, tree)
        if run is not None:
            self.unfit += [(("runs", name, *location), what) for location, what in run_mistakes(run)]
        return run

    def _preset(self, preset: str, section: str, tree: Branch) -> Branch | None:
        """A run's `model`, `training` or `sampling` on top of the entry that its `base` names."""
        own = tree.get(preset)
        if not isinstance(own, Branch):
            where = own.place if own is not None else (*tree.root, preset)
            self.mistakes.append((where, "expected a mapping, with `base:` and what differs from it"))
            return None
        if "base" not in own:
            return own
        return self._upon(section, plain(own["base"]), own["base"].place, _own(own), ())

    def _valid(self, schema: Any, content: Any, tree: Any) -> Any:
        """`content` as an object of `schema`, or None with its mistakes noted."""
        try:
            if any(isinstance(value, BaseModel) for value in _values(content)):
                return schema.model_validate(content)  # its parts have been checked
            return _adapter(schema).validate_json(json.dumps(content), strict=True)
        except ValidationError as error:
            details = error.errors()
            for detail in details:
                place = tuple(key for key in detail["loc"] if key != "[key]")  # pydantic's word for a key that is wrong
                # A list is "too short" for pydantic when its entries are wrong.
                if detail["type"] == "too_short" and any(place == d["loc"][: len(place)] != d["loc"] for d in details):
                    continue
                missing = detail["type"] == "missing"
                where, what = origin(tree, place, missing=missing, tagged=True), message_of(detail)
                if detail["type"] == "extra_forbidden":
                    base = ["base"] if _may_inherit(where[:-1]) else []
                    what += nearest(place[-1], [*base, *keys_at(_adapter(schema), place[:-1])])
                self.mistakes.append((where, what))
        return None


def _own(tree: Branch) -> Branch:
    """What an entry says itself, without what it inherits from."""
    return Branch({key: item for key, item in tree.items() if key != "base"}, tree.place)


def _base(section: str, tree: Branch) -> tuple[Any, Keys]:
    """What an entry inherits from, None for nothing, and where that stands."""
    if "base" in tree:
        return plain(tree["base"]), (*tree.place, "base")
    if section == "runs" and isinstance(tree.get("checkpoint"), Branch):
        # Weights of a run: its model and data too.
        return plain(tree["checkpoint"]).get("run"), (*tree.place, "checkpoint", "run")
    return None, tree.place


def _may_inherit(keys: Keys) -> bool:
    """Whether a mapping of the file may have `base:`: an entry of a section, or a preset of a run."""
    if keys[0] == "runs" and len(keys) == 3:
        return keys[2] in _PRESETS
    return keys[0] not in ("tables", "figures") and len(keys) == 2


def _values(content: Any) -> Iterator[Any]:
    if isinstance(content, dict):
        for value in content.values():
            yield from _values(value)
    else:
        yield content


@functools.cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def known(params: Params, section: str, name: str) -> str:
    """The name itself if there is such an entry.

    Args:
        params: All of params.yaml.
        section: "studies", "datasets", "evaluation", "runs", "tables" or "figures".
        name: What somebody asks for.

    Raises:
        ParamsError: There is none; the nearest name is told.
    """
    entries = getattr(params, section)
    if name not in entries:
        raise ParamsError(f"params.yaml: {section}.{name}: there is no such {_NOUNS[section]}{nearest(name, entries)}")
    return name


def study_of(params: Params, name: str | None) -> str:
    """The study that somebody asks for, or params.yaml's `study` if none is named.

    Args:
        params: All of params.yaml.
        name: What somebody asks for.

    Raises:
        ParamsError: There is none; the nearest name is told.
    """
    return params.study if name is None else known(params, "studies", name)
