"""What an edit touches: the jobs that Snakemake plans, those that DVC calls changed, and those that are expected."""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import networkx
import pytest
from dvc.repo import Repo
from dvc.utils import strictyaml

from dip import params
from dip.pipeline import Pipeline
from dip.reporting.published import PUBLISHED
from dip.versioning.stages import write_stages
from project import Repository

DIT = {"train dit", "sample dit", "latency dit", "evaluate dit"}
DIP = {"train dip", "sample dip", "latency dip", "evaluate dip"}
EPOCH1 = {"milestone dip_ep1", "sample dip_ep1", "latency dip_ep1", "evaluate dip_ep1"}
DATA = {"prepare photos16", "feature_network photos16", "reference photos16"}
TABLE1, TABLE2, FIGURE = {"table table1"}, {"table table2"}, {"figure figure10"}
REPORTS = TABLE1 | TABLE2 | FIGURE
ALL = DATA | DIT | DIP | EPOCH1 | REPORTS


def of(*rules: str) -> set[str]:
    """Jobs of some rules."""
    return {job for job in ALL if job.split()[0] in rules}


# An edit of params.yaml: what is replaced, by what, and all jobs that it may plan.
EDITS: dict[str, tuple[str, str, set[str]]] = {
    "batch size of a run that another builds on": (
        "model: {base: dit}\n    training: {base: tiny}",
        "model: {base: dit}\n    training: {base: tiny, batch_size: 4}",
        DIT | DIP | EPOCH1 | REPORTS,
    ),
    "learning rate of a run whose weights another takes": (
        "training: {milestones: [1]}",
        "training: {milestones: [1], learning_rate: 2.0e-3}",
        DIP | EPOCH1 | REPORTS,
    ),
    "seed of a training": (
        "training: {milestones: [1]}",
        "training: {milestones: [1], seed: 1}",
        DIP | EPOCH1 | REPORTS,
    ),
    "training preset": ("epochs: 2, batch_size: 8", "epochs: 2, ema_decay: 0.9, batch_size: 8", ALL - DATA),
    "model of a run": (
        "label: DiP\n    model: {base: dip}",
        "label: DiP\n    model: {base: dip, head: {width: 8}}",
        DIP | EPOCH1 | REPORTS,
    ),
    "model preset": ("unet, depth: 1, width: 4", "unet, depth: 2, width: 4", DIP | EPOCH1 | REPORTS),
    "sampling of a run": (
        "checkpoint: {run: dip, epoch: 1}}",
        "checkpoint: {run: dip, epoch: 1}, sampling: {num_steps: 3}}",
        EPOCH1 - {"milestone dip_ep1"} | TABLE1,
    ),
    "sampling preset": ("cfg_scale: 1.5", "cfg_scale: 1.6", of("sample", "latency", "evaluate") | REPORTS),
    "number of samples": ("num_samples: 20", "num_samples: 22", of("sample", "evaluate") | REPORTS),
    "weights of another epoch": (
        "checkpoint: {run: dip, epoch: 1}",
        "checkpoint: {run: dip}",
        EPOCH1 - {"milestone dip_ep1"} | TABLE1,
    ),
    "metric": ("num_samples: 20", "num_samples: 20\n    neighbours: 2", of("evaluate") | REPORTS),
    "title of an evaluator": ("title: photo network", "title: network", set()),
    "reference": ("num_images: 20", "num_images: 24", {"reference photos16"} | of("evaluate") | REPORTS),
    "feature network": (
        "num_steps: 2}\n    reference",
        "num_steps: 3}\n    reference",
        {"feature_network photos16", "reference photos16"} | of("evaluate") | REPORTS,
    ),
    "data": ("crops_per_class: 8", "crops_per_class: 8\n    held_out: 0.3", ALL),
    "photographs of the data": ("[astronaut, coffee]", "[coffee, astronaut]", ALL),
    "one more photograph": ("[astronaut, coffee]", "[astronaut, coffee, coins]", ALL | {"photograph coins.png"}),
    "label": ("label: DiP\n", "label: DiP/8\n", TABLE2),
    "caption of a table": ("caption: One training.", "caption: A training.", TABLE1),
    "rows of a table": ("Patch Detailer Head: [dip]", "Patch Detailer Head: [dip, dip_ep1]", TABLE2),
    "order of a table's sections": (
        "Scaling Up DiT: [dit]\n        Different Patch Detailer Head: [dip]",
        "Different Patch Detailer Head: [dip]\n        Scaling Up DiT: [dit]",
        TABLE2,
    ),
    "table without published rows": ("layout: table1", "layout: table1\n      published: false", TABLE1),
    "panel": ("title: patch size", "title: patch", FIGURE),
    "series of a figure": ("series: {DiP: [dip]}", "series: {DiP: [dip], DiT: [dit]}", FIGURE),
    "figure on request": ("kind: comparison", "kind: comparison\n      on_request: true", set()),
    "title of the study": ("title: Tiny,", "title: Small,", FIGURE),
    "version of the code": ("code_version: 1", "code_version: 2", ALL),
    "new run": (
        "  dip_ep1: {label",
        "  mlp: {base: dit, label: MLP, model: {head: {name: mlp}}}\n  dip_ep1: {label",
        set(),
    ),
    "comment": ("code_version: 1", "# A remark.\ncode_version: 1  # Another.", set()),
    "order of keys": (
        "dit: {patch_size: 8, hidden_size: 16, depth: 2",
        "dit: {depth: 2, hidden_size: 16, patch_size: 8",
        set(),
    ),
    "number written otherwise": ("learning_rate: 1.0e-3", "learning_rate: 0.001", set()),
    "inherited value written out": ("label: DiP\n", "label: DiP\n    dataset: photos16\n", set()),
    "description of a study": ("The chain in a minute.}", "The chain.}", set()),
}


@pytest.fixture(scope="module", autouse=True)
def _each_text_is_parsed_once() -> Iterator[None]:
    """DVC parses all stages and locks three times for one status, and few of them differ from test to test."""
    parsed = functools.cache(strictyaml.parse_yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strictyaml, "parse_yaml", lambda *arguments, **more: copy.deepcopy(parsed(*arguments, **more)))
        yield


@pytest.fixture(scope="module")
def edited(_recorded: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository of this module, in which nothing is run."""
    return _recorded.copy(tmp_path_factory.mktemp("edited") / "project")


@pytest.fixture
def restored(edited: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The same; what a test changes in it is undone."""
    kept = edited.folder.with_name("kept")
    for name in (
        "params.yaml",
        "studies",
        PUBLISHED,
        "data/photographs",
        "results/demo/runs/dit",
    ):
        target = kept / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (edited.folder / name).is_dir() else shutil.copy2
        copy(edited.folder / name, target)
    monkeypatch.chdir(edited.folder)
    yield edited
    for place in sorted(kept.rglob("*")):
        original = edited.folder / place.relative_to(kept)
        if place.is_file():
            original.unlink(missing_ok=True)
            original.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(place, original)
    for place in (edited.folder / "studies").rglob("*"):
        if place.is_file() and not (kept / place.relative_to(edited.folder)).exists():
            place.unlink()
    shutil.rmtree(kept)


def changed_in_dvc(repository: Repository) -> set[str]:
    """Jobs whose stages DVC calls changed, and those after them."""
    if repository.has_our_sources:
        write_stages(Pipeline(params.load()), "demo")
    else:
        repository.run("dip", "stages", "demo")
    makers = {str(path): job for job in Pipeline(params.load()).all_jobs() for path in job.outputs.values()}
    with Repo(str(repository.folder)) as repo:
        titles = {}
        for stage in repo.index.stages:
            outputs = [Path(out.fs_path).relative_to(repository.folder) for out in stage.outs]
            jobs = {makers[str(path)].title for path in outputs if str(path) in makers}
            jobs |= {job.title for job in makers.values() if job.folder in outputs}
            titles[stage.addressing] = jobs
        status = repo.status()
        # Stages whose outputs alone have changed record them as they are.
        seeds = {
            name for name, changes in status.items() if any("changed deps" in change for change in changes if change)
        }
        graph = repo.index.graph
        between = [stage for stage in graph if titles[stage.addressing]]
        above = graph.subgraph(between)
        touched = set()
        for stage in between:
            if stage.addressing in seeds:
                touched |= {stage, *networkx.ancestors(above, stage)}
        return {job for stage in touched for job in titles[stage.addressing]}


@pytest.mark.parametrize("what", EDITS)
def test_an_edit_touches_what_depends_on_it(restored: Repository, what: str) -> None:
    """One job too few is a stale result, one too many may be days of a GPU; and the two tools must not differ."""
    old, new, expected = EDITS[what]
    restored.edit(old, new)
    assert restored.plan() == expected
    assert changed_in_dvc(restored) == expected


def new_run(repository: Repository) -> set[str]:
    repository.edit(*EDITS["new run"][:2])
    repository.edit("Head: [dip]", "Head: [mlp, dip]")
    return {"train mlp", "sample mlp", "latency mlp", "evaluate mlp"} | TABLE2


def removed_run(repository: Repository) -> set[str]:
    repository.edit("  dip_ep1: {label: DiP after one epoch, checkpoint: {run: dip, epoch: 1}}\n", "")
    repository.edit("Generative Models: [dip_ep1]", "Generative Models: [dip]")
    return TABLE1


def renamed_run(repository: Repository) -> set[str]:
    (repository.folder / "params.yaml").write_text(repository.params.replace("dip_ep1", "early"))
    return {job.replace("dip_ep1", "early") for job in EPOCH1} | TABLE1


def moved_run(repository: Repository) -> set[str]:
    line = "  dip_ep1: {label: DiP after one epoch, checkpoint: {run: dip, epoch: 1}}\n"
    repository.edit(line, "")
    repository.edit("runs:\n", f"runs:\n{line}")
    return set()


def changed_photograph(repository: Repository) -> set[str]:
    path = repository.folder / "data/photographs/coffee.png"
    path.write_bytes((repository.folder / "data/photographs/astronaut.png").read_bytes())
    return ALL


def touched_photograph(repository: Repository) -> set[str]:
    os.utime(repository.folder / "data/photographs/coffee.png")
    return set()


def touched_weights(repository: Repository) -> set[str]:
    os.utime(repository.folder / "results/demo/runs/dit/model.safetensors")
    return set()


def changed_metrics(repository: Repository) -> set[str]:
    path = repository.folder / "results/demo/runs/dit/metrics.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "fid": content["fid"] + 1}))
    return TABLE2


def published_figure(repository: Repository) -> set[str]:
    path = repository.folder / PUBLISHED
    rows = path.read_text().splitlines()
    place = next(place for place, row in enumerate(rows) if row.startswith("2,"))
    rows[place] = rows[place].replace(",6", ",7", 1)
    path.write_text("\n".join(rows) + "\n")
    return TABLE2


def figure_of_an_unshown_table(repository: Repository) -> set[str]:
    path = repository.folder / PUBLISHED
    rows = path.read_text().splitlines()
    place = next(place for place, row in enumerate(rows) if row.startswith("3,"))
    rows[place] += "9"
    path.write_text("\n".join(rows) + "\n")
    return set()


@pytest.mark.parametrize(
    "change",
    [
        new_run,
        removed_run,
        renamed_run,
        moved_run,
        changed_photograph,
        touched_photograph,
        touched_weights,
        changed_metrics,
        published_figure,
        figure_of_an_unshown_table,
    ],
)
def test_a_change_touches_what_depends_on_it(restored: Repository, change: Callable[[Repository], set[str]]) -> None:
    """The same for runs that come and go, and for files: by content, never by their time."""
    expected = change(restored)
    assert restored.plan() == expected
    assert changed_in_dvc(restored) == expected
