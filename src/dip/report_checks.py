"""Tables and figures of params.yaml that cannot be made, though each of their values is fine by itself."""

from __future__ import annotations

from collections.abc import Iterator

from dip.checks import Keys, Mistake, interval_mistakes, photograph_mistakes
from dip.data.synsets import same_class
from dip.nearest import nearest
from dip.paths import REPORT
from dip.reporting.published import PAPER_TABLES
from dip.schema import Comparison, Gallery, Manifold, Overfit, Params, Photographs, Table


def report_mistakes(params: Params) -> Iterator[Mistake]:
    """What is wrong with tables and figures and the runs that they show."""
    for section, entries in (("tables", params.tables), ("figures", params.figures)):
        for name, by_study in entries.items():
            if name == REPORT:
                yield (section, name), "Snakemake's report of a study has this name; give it another"
            for study, entry in by_study.items():
                yield from _entry_mistakes((section, name, study), study, entry.runs, params)
                if section == "figures" and study in params.tables.get(name, {}):
                    yield (section, name, study), "a table of this study has the same name; give one of them another"
                if isinstance(entry, Table):
                    yield from _table_mistakes((section, name, study), entry)
                if isinstance(entry, Comparison):
                    yield from _comparison_mistakes((section, name, study), entry, params)
                if isinstance(entry, Overfit):
                    yield from _overfit_mistakes((section, name, study), entry, params)
                if isinstance(entry, Gallery):
                    yield from _gallery_mistakes((section, name, study), entry, params)
                if isinstance(entry, Manifold):
                    yield from _manifold_mistakes((section, name, study), entry)


def _entry_mistakes(where: Keys, study: str, runs: tuple[str, ...], params: Params) -> Iterator[Mistake]:
    of_study = [name for name, run in params.runs.items() if run.study == study]
    for run in runs:
        if run not in params.runs:
            yield where, f"there is no run '{run}'{nearest(run, of_study)}"
        elif params.runs[run].study != study:
            yield where, f"run '{run}' belongs to study '{params.runs[run].study}'"


def _table_mistakes(where: Keys, table: Table) -> Iterator[Mistake]:
    twice = sorted({run for run in table.runs if table.runs.count(run) > 1})
    if twice:
        yield where, f"run '{twice[0]}' stands in it twice"
    if not table.runs and not (table.published and table.layout in PAPER_TABLES):
        yield (*where, "sections"), "there is no run, and the table has no published rows"


def _comparison_mistakes(where: Keys, figure: Comparison, params: Params) -> Iterator[Mistake]:
    for index, panel in enumerate(figure.panels):
        for label, runs in panel.series.items():
            for place, run in enumerate(params.runs[name] for name in runs if name in params.runs):
                key: Keys = (*where, "panels", index, "series", label, place)
                head, size, patch = run.model.head, run.dataset.image_size, run.model.patch_size
                part, _, setting = panel.x.partition(".")
                if part == "head" and not hasattr(head, setting):
                    yield key, f"'{run.name}' has no {panel.x}; its head is '{head.name}'"
                if panel.y in ("seams", "period") and not 1 < patch < size:
                    yield (
                        key,
                        f"'{run.name}' has no {panel.y}: its patches of {patch} leave no grid in images of {size}",
                    )


def _overfit_mistakes(where: Keys, figure: Overfit, params: Params) -> Iterator[Mistake]:
    yield from photograph_mistakes((*where, "photograph"), (figure.photograph,))
    side = figure.crop.size
    for label, series in figure.series.items():
        run = params.runs.get(series.run)
        if run is None:
            continue
        patch, width, rank = run.model.patch_size, run.model.hidden_size, 3 * run.model.patch_size**2
        key: Keys = (*where, "series", label, "run")
        if side % patch:
            yield key, f"patch_size {patch} of '{run.name}' does not divide the crop of {side} x {side} pixels"
        if width < rank:
            yield (
                key,
                f"hidden_size {width} of '{run.name}' is below 3 x patch_size^2 = {rank}: its tokens cannot carry the "
                "noise of a patch, which would be taken for a loss of detail",
            )
    for index, detail in enumerate(figure.details):
        if max(detail.top, detail.left) + detail.size > side:
            yield (*where, "details", index), f"reaches outside the crop of {side} x {side} pixels"


def _gallery_mistakes(where: Keys, figure: Gallery, params: Params) -> Iterator[Mistake]:
    yield from interval_mistakes((*where, "cfg_interval"), figure.cfg_interval)
    run = params.runs.get(figure.run)
    if run is None:
        return
    for number, name in figure.classes.items():
        if number >= run.dataset.num_classes:
            yield (*where, "classes", number), f"the dataset of '{run.name}' has {run.dataset.num_classes} classes"
        elif isinstance(run.dataset, Photographs) and not same_class(name, known := run.dataset.photographs[number]):
            yield (*where, "classes", number), f"it is '{known}' in the dataset of '{run.name}', not '{name}'"
    if figure.cfg_scale > 1 and run.training.label_dropout == 0:
        yield (*where, "cfg_scale"), f"'{run.name}' has seen no images without labels (training.label_dropout is 0)"


def _manifold_mistakes(where: Keys, figure: Manifold) -> Iterator[Mistake]:
    if figure.hidden_size % (4 * figure.num_heads):
        yield (
            (*where, "hidden_size"),
            f"{figure.hidden_size} is not divisible by 4 x num_heads = {4 * figure.num_heads}, as 2-D RoPE needs",
        )
