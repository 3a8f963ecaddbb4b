"""Sizes of the paper's runs, and which figures of the paper stand beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dip import cli, params
from dip.model import build_model
from dip.reporting import describe as module
from dip.reporting.cost import forward_gflops
from dip.reporting.describe import Description, describe, find_published, to_json, to_text
from dip.schema import Params

REPOSITORY = Path(__file__).parents[3]

# The run of each row of Tables 1 to 3: our count and the paper's in millions, and the paper's text and rows.
PUBLISHED = {
    "dit_26x1152": (628.56, 629, "629M", "Table 2, row 1"),
    "dit_32x1152": (771.95, 772, "772M", "Table 2, row 2"),
    "dit_26x1280": (775.54, 776, "776M", "Table 2, row 3"),
    "dit_26x1536": (1115.89, 1116, "1.1B", "Table 2, row 4"),
    "dip_mlp": (630.18, 630, "630M", "Table 2, row 5"),
    "dip_attention": (629.84, 630, "630M", "Table 2, row 6"),
    "dip_coordinate": (700.59, 700, "700M", "Table 2, row 7"),
    "dip_xl_16_ep160": (630.60, 631, "631M", "Table 1, row 14; Table 2, row 8"),
    "dip_xl_16_75steps": (630.60, 631, "631M", "Table 1, row 15"),
    "dip_xl_16": (630.60, 631, "631M", "Table 1, row 16"),
    "dip_xl_32_512": (633.25, 631, "631M", "Table 3, row 9"),
}


@pytest.fixture(scope="module")
def repository() -> Params:
    """The repository's own params.yaml."""
    return params.load(REPOSITORY / "params.yaml")


@pytest.fixture(scope="module")
def descriptions(repository: Params) -> dict[str, Description]:
    """The paper's rows, runs with a head elsewhere, and one of the demo; operations are not counted, to save time."""
    names = [*PUBLISHED, "dip_intermediate", "dip_hybrid", "demo_mlp"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "forward_gflops", lambda build, image_size: image_size / 7)
        found = {d.run: d for d in describe(repository, [repository.runs[name] for name in names])}
    module._size.cache_clear()
    return found


@pytest.mark.parametrize("run", PUBLISHED)
def test_paper_s_figures_stand_beside_the_run(descriptions: dict[str, Description], run: str) -> None:
    """Wrong: a run is compared with another row of the paper, or params.yaml has another architecture."""
    ours, _, text, source = PUBLISHED[run]
    found = descriptions[run]
    assert found.num_parameters / 1e6 == pytest.approx(ours, abs=0.01)
    assert found.published is not None and found.difference is not None and found.difference_percent is not None
    assert (found.published.params, found.published.source) == (text, source)
    printed = found.published.num_parameters
    assert printed == (1_100_000_000 if text == "1.1B" else int(text[:-1]) * 10**6)
    assert found.difference == found.num_parameters - printed
    assert found.difference_percent == pytest.approx(100 * found.difference / printed)


def test_counts_round_to_the_paper_s(descriptions: dict[str, Description]) -> None:
    """Wrong: a count differs from the paper's by more than rounding; two rows do, and the README says how."""
    rounded = {run: round(descriptions[run].num_parameters / 1e6) for run in PUBLISHED}
    printed = {run: millions for run, (_, millions, _, _) in PUBLISHED.items()}
    differing = {run: (rounded[run], printed[run]) for run in PUBLISHED if rounded[run] != printed[run]}
    assert differing == {"dip_coordinate": (701, 700), "dip_xl_32_512": (633, 631)}


def test_every_published_row_of_dip_has_a_run(repository: Params) -> None:
    """Wrong: a row that the paper has is compared with nothing."""
    sources = {found.source for run in repository.runs.values() if (found := find_published(repository, run))}
    assert sources == {source for _, _, _, source in PUBLISHED.values()}


def test_a_table_of_our_own_stands_for_no_row_of_the_paper(repository: Params) -> None:
    """Wrong: a table of costs that leaves `published` at its default ends `dip describe`."""
    cost = repository.tables["cost"]["paper"].model_copy(update={"published": True})
    changed = repository.model_copy(update={"tables": {"cost": {"paper": cost}}})
    assert find_published(changed, changed.runs["dip_xl_16"]) is None


def test_parts_and_cost(descriptions: dict[str, Description]) -> None:
    """Wrong: a head is counted as backbone, one of two heads is left out, or tokens and passes are not the run's."""
    dit, dip = descriptions["dit_26x1152"], descriptions["dip_xl_16"]
    middle, both = descriptions["dip_intermediate"], descriptions["dip_hybrid"]
    assert dit.head_parameters == 0
    final_layer = 1152 * 2 * 1152 + 2 * 1152 + 1152 * 768 + 768  # modulation and output, which the head replaces
    assert dit.backbone_parameters - dip.backbone_parameters == final_layer
    projection = 768 * 1152 + 1152
    assert middle.head_parameters == dip.head_parameters + projection
    assert middle.backbone_parameters == dit.backbone_parameters
    assert both.head_parameters == 2 * dip.head_parameters + projection
    assert both.backbone_parameters == dip.backbone_parameters
    for found in descriptions.values():
        assert found.num_parameters == found.backbone_parameters + found.head_parameters
    assert (dip.num_tokens, descriptions["dip_xl_32_512"].num_tokens) == (256, 256)
    assert (dip.nfe, dip.num_function_evaluations) == ("100x2", 100 + 87)  # t = 0.11, ..., 0.97
    assert dip.published is not None and dip.published.nfe == "100x2"


def test_operations(repository: Params) -> None:
    """Wrong: the operations are not those of the run's model at the run's image size."""
    (found,) = describe(repository, [repository.runs["demo_dip"]])
    run = repository.runs["demo_dip"]
    assert found.gflops == forward_gflops(lambda: build_model(run.model, 32, 10), 32)


def test_only_the_paper_s_study_is_compared(descriptions: dict[str, Description]) -> None:
    """Wrong: a small model of the demo, of the same label, is held against 630M."""
    assert descriptions["demo_mlp"].label == "Standard MLP"
    assert descriptions["demo_mlp"].published is None and descriptions["demo_mlp"].difference is None
    assert descriptions["dip_hybrid"].published is None


def test_other_settings_are_not_the_paper_s_row(repository: Params) -> None:
    """Wrong: a run of 80 epochs, 50 steps or another method is compared with the paper's."""
    run = repository.runs["dip_xl_16"]
    assert find_published(repository, run) is not None
    for change in (
        {"training": run.training.model_copy(update={"epochs": 80})},
        {"sampling": run.sampling.model_copy(update={"num_steps": 50})},
        {"label": "DiP-XL/16, two stages"},
    ):
        assert find_published(repository, run.model_copy(update=change)) is None


def test_json_has_every_digit(descriptions: dict[str, Description]) -> None:
    """Wrong: numbers of the JSON are rounded or text, or a missing figure is not null."""
    content = {entry["run"]: entry for entry in json.loads(to_json(list(descriptions.values())))}
    assert list(content) == list(descriptions)
    assert content["dip_xl_16"]["num_parameters"] == descriptions["dip_xl_16"].num_parameters
    assert content["dip_xl_16"]["gflops"] == descriptions["dip_xl_16"].gflops
    assert content["dip_xl_16"]["published"]["num_parameters"] == 631_000_000
    assert content["dip_hybrid"]["published"] is None and content["dip_hybrid"]["difference_percent"] is None


def test_table_fits_a_terminal(descriptions: dict[str, Description]) -> None:
    """Wrong: lines wrap, columns do not align, or a run without a published figure has no dash."""
    lines = to_text(list(descriptions.values())).splitlines()
    assert max(map(len, lines)) <= 140
    assert len(lines) == len(descriptions) + 1
    assert len({len(line) for line in lines}) == 1
    cells = lines[-1].split()
    assert cells[0] == "demo_mlp" and cells[4:7] == ["-", "-", "-"] and cells[-4:] == ["12x2", "-", "22", "-"]
    (row,) = (line for line in lines if line.startswith("dip_xl_16_ep160"))
    assert "631M" in row and row.endswith("T1.14 T2.8")


@pytest.fixture
def folder(
    load: Callable[..., Params], content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder, with a tiny params.yaml."""
    load(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: `dip describe` prints other runs than those asked for, or anything beside its table or JSON."""

    def runs(*arguments: str) -> list[str]:
        cli.main(["describe", *arguments, "--json"])
        return [entry["run"] for entry in json.loads(capsys.readouterr().out)]

    assert runs() == runs("--study", "demo") == ["dip", "dit", "deep", "dip_ep2", "dip_2steps"]
    assert runs("dit", "dip") == ["dit", "dip"]
    cli.main(["describe", "dit"])
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "dit"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["dpi"], "dip describe: params.yaml: runs.dpi: there is no such run; did you mean 'di"),
        (["--study", "papr"], "dip describe: params.yaml: studies.papr: there is no such study; did you mean 'paper'?"),
        (["--study", ""], "dip describe: params.yaml: studies.: there is no such study"),
        (["--study", "paper"], "dip describe: params.yaml: runs: none belongs to study 'paper'"),
        (["--study", "paper", "dip"], "dip describe: params.yaml: runs.dip: belongs to study 'demo', not 'paper'"),
    ],
)
def test_mistakes_end_in_one_line(folder: Path, arguments: list[str], expected: str) -> None:
    """Wrong: a traceback, or an empty table for a name that is mistyped."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["describe", *arguments])
    assert str(stop.value.code).startswith(expected)


def test_runs_of_one_model_are_counted_once(
    load: Callable[..., Params], content: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: every milestone of a large model is made again."""
    made = []
    monkeypatch.setattr(module, "build_model", lambda *arguments: made.append(arguments) or build_model(*arguments))
    content["models"]["dit"]["hidden_size"] = 32  # no model that another test has made
    loaded = load(content)
    found = list(describe(loaded, loaded.runs.values()))
    assert len(found) == 5 and len(made) == 3
