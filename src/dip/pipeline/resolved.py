"""Everything that results depend on, without inheritance: params.yaml resolved, and what else the jobs take.

The keys are those of params.yaml, with two more: `photographs`, checksums of the photographs in their Python packages,
and `published`, the paper's own rows. What changes no result (where images lie, for example) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dip.data.packaged import checksum
from dip.reporting.published import PAPER_TABLES, published_rows
from dip.schema import Overfit, Params, Photographs


class Resolved(Mapping[str, Any]):
    """The sections, each worked out when it is asked for.

    Args:
        params: All of params.yaml.
    """

    def __init__(self, params: Params) -> None:
        self._sections: dict[str, Callable[[], Any]] = {
            "code_version": lambda: params.code_version,
            "studies": lambda: {name: {"title": study.title} for name, study in params.studies.items()},
            "photographs": lambda: {name: checksum(name) for name in photographs_of(params)},
            "datasets": lambda: _dumped(params.datasets),
            "evaluation": lambda: _dumped(params.evaluation),
            "runs": lambda: {
                name: {key: value for key, value in run.items() if key not in ("code_version", "name")}
                for name, run in _dumped(params.runs).items()
            },
            "published": lambda: {
                layout: {
                    row["row"]: {key: value for key, value in row.items() if value} for row in published_rows(layout)
                }
                for layout in PAPER_TABLES
            },
            "tables": lambda: {name: _dumped(by_study) for name, by_study in params.tables.items()},
            "figures": lambda: {name: _dumped(by_study) for name, by_study in params.figures.items()},
        }
        self._known: dict[str, Any] = {}

    def __getitem__(self, section: str) -> Any:
        if section not in self._known:
            self._known[section] = self._sections[section]()
        return self._known[section]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)

    def value(self, key: str) -> Any:
        """The value at a path of keys, `runs.demo_dip.model` for example."""
        value: Any = self
        for part in key.split("."):
            value = value[part]
        return value


def photographs_of(params: Params) -> tuple[str, ...]:
    """Names of all photographs that params.yaml uses."""
    datasets = (dataset.photographs for dataset in params.datasets.values() if isinstance(dataset, Photographs))
    figures = (figure for by_study in params.figures.values() for figure in by_study.values())
    learned = (figure.photograph for figure in figures if isinstance(figure, Overfit))
    return tuple(dict.fromkeys([*(name for names in datasets for name in names), *learned]))


def _dumped(entries: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry.model_dump(mode="json") for name, entry in entries.items()}
