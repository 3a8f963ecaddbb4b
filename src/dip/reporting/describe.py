"""`dip describe`: size and cost of every run's model beside what the paper prints; nothing is trained."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from dip.diffusion.evaluations import nfe_label, num_function_evaluations
from dip.model import build_model
from dip.paths import PAPER
from dip.reporting.cost import forward_gflops
from dip.reporting.published import published_rows
from dip.schema import Model, Params, Run

_UNITS = {"M": 10**6, "B": 10**9}


@dataclass(frozen=True)
class Published:
    """What the paper prints for a run.

    Attributes:
        source: Its tables and rows, as "Table 1, row 14; Table 2, row 8".
        params: Number of parameters as printed, as "631M".
        num_parameters: The same as a number.
        nfe: Evaluations of the network per image as printed, as "100x2"; None where it is not.
    """

    source: str
    params: str
    num_parameters: int
    nfe: str | None


@dataclass(frozen=True)
class Description:
    """Size and cost of a run's model.

    Attributes:
        run: Name of the run.
        study: Study of the run.
        label: How tables and figures name it.
        num_parameters: All weights.
        backbone_parameters: Those of the DiT, with its final layer where no head stands in its place.
        head_parameters: Those of all Patch Detailer Heads, with what projects an intermediate one back.
        gflops: 10^9 operations of one forward pass on one image; a multiply-add is two.
        num_tokens: Patches of one image.
        nfe: Evaluations per image in the paper's notation: guidance counts as two throughout.
        num_function_evaluations: Evaluations per image that are made: two inside the guidance interval only.
        published: What the paper prints for it; None for a run that the paper does not have.
        difference: `num_parameters` less the paper's; None without such.
        difference_percent: The same in percent of the paper's.
    """

    run: str
    study: str
    label: str
    num_parameters: int
    backbone_parameters: int
    head_parameters: int
    gflops: float
    num_tokens: int
    nfe: str
    num_function_evaluations: int
    published: Published | None
    difference: int | None
    difference_percent: float | None


def describe(params: Params, runs: Iterable[Run]) -> Iterator[Description]:
    """Describe runs; their models are made on torch's meta device, equal ones once.

    Args:
        params: Whose tables say which rows of the paper the runs stand for.
        runs: Some of its runs.

    Raises:
        ValueError: A model cannot be made; the message says why.
    """
    for run in runs:
        total, head, gflops = _size(run.model, run.dataset.image_size, run.dataset.num_classes)
        published = find_published(params, run)
        printed = published.num_parameters if published else None
        yield Description(
            run=run.name,
            study=run.study,
            label=run.label,
            num_parameters=total,
            backbone_parameters=total - head,
            head_parameters=head,
            gflops=gflops,
            num_tokens=(run.dataset.image_size // run.model.patch_size) ** 2,
            nfe=nfe_label(run.sampling),
            num_function_evaluations=num_function_evaluations(run.sampling),
            published=published,
            difference=total - printed if printed else None,
            difference_percent=100 * (total / printed - 1) if printed else None,
        )


@functools.cache
def _size(model: Model, image_size: int, num_classes: int) -> tuple[int, int, float]:
    """Parameters of a model, those of its heads, and GFLOP of a forward pass."""
    with torch.device("meta"):
        network = build_model(model, image_size, num_classes)
    total = sum(parameter.numel() for parameter in network.parameters())
    head = sum(parameter.numel() for parameter in network.head_parameters())
    return total, head, forward_gflops(lambda: network, image_size)


def find_published(params: Params, run: Run) -> Published | None:
    """What the paper prints for a run of the paper's study.

    A row of the paper is the run's if a table of params.yaml shows the run in the section of that row, the run's
    label has the row's method as its name (alone, before a bracket or in one), and epochs and evaluations are those
    that the row prints.
    """
    if run.study != PAPER:
        return None
    rows = [
        row
        for by_study in params.tables.values()
        if (table := by_study.get(PAPER)) is not None and table.published
        for section, names in table.sections.items()
        if run.name in names
        for row in published_rows(table.layout)
        if row["section"] == section and _stands_for(row, run)
    ]
    if not rows:
        return None
    printed = rows[0]["params"]
    return Published(
        source="; ".join(dict.fromkeys(f"Table {row['table']}, row {row['row']}" for row in rows)),
        params=printed,
        num_parameters=sum(round(float(part[:-1]) * _UNITS[part[-1]]) for part in printed.split("+")),
        nfe=next((row["nfe"] for row in rows if row["nfe"]), None),
    )


def _stands_for(row: Mapping[str, str], run: Run) -> bool:
    bracket = re.fullmatch(r"(.+?) \((.+)\)", run.label)
    names = {run.label, *(bracket.groups() if bracket else ())}
    return (
        row["method"] in names
        and row["params"] != ""
        and row["epochs"] in ("", str(run.epochs))
        and row["nfe"] in ("", nfe_label(run.sampling))
    )


def to_json(descriptions: Sequence[Description]) -> str:
    """A list of objects with the attributes of `Description`, numbers in full."""
    return json.dumps([dataclasses.asdict(description) for description in descriptions], indent=2, ensure_ascii=False)


def to_text(descriptions: Sequence[Description]) -> str:
    """An aligned table with millions of parameters, "-" where the paper has nothing."""
    columns = {
        "params (M)": [_millions(d.num_parameters) for d in descriptions],
        "backbone": [_millions(d.backbone_parameters) for d in descriptions],
        "head": [_millions(d.head_parameters) for d in descriptions],
        "paper": [d.published.params if d.published else "-" for d in descriptions],
        "diff (M)": [_signed(d.difference, 1e6) for d in descriptions],
        "diff (%)": [_signed(d.difference_percent, 1) for d in descriptions],
        "GFLOP": [f"{d.gflops:.2f}" for d in descriptions],
        "tokens": [str(d.num_tokens) for d in descriptions],
        "NFE": [d.nfe for d in descriptions],
        "paper NFE": [(d.published and d.published.nfe) or "-" for d in descriptions],
        "passes": [str(d.num_function_evaluations) for d in descriptions],
        "paper's rows": [_short(d.published.source) if d.published else "-" for d in descriptions],
    }
    table = pd.DataFrame(columns, index=[d.run for d in descriptions])
    return table.rename_axis(columns="run").to_string()


def _short(source: str) -> str:
    """A source as T1.14 T2.8, for Table 1, row 14 and Table 2, row 8."""
    return source.replace("Table ", "T").replace(", row ", ".").replace(";", "")


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _signed(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:+.2f}"
