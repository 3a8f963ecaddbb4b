"""A run written into params.yaml by `dip ablation`."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dip import cli
from dip.ablation import add_run
from dip.params import load

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="module")
def _each_text_is_parsed_once() -> Iterator[None]:
    """The places of all words in the shipped params.yaml take a fifth of a second to find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml, "compose", functools.cache(yaml.compose))
        yield


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped params.yaml, free to edit."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(REPOSITORY / "params.yaml", "params.yaml")
    return Path("params.yaml")


def test_writes_the_lines_that_a_person_would(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: comments, order or layout would be lost, or the table would not show the run."""
    before = file.read_text()
    cli.main(
        [
            *("ablation", "demo_dip", "--name", "demo_shallow", "--label", "U-Net: two stages", "--table", "table2"),
            *("--set", "model.head.depth=2", "--set", "training.betas=[0.9, 0.95]"),
        ]
    )
    old, new = before.splitlines(), file.read_text().splitlines()
    added = [line for line in new if line not in old]
    assert added == [
        "  demo_shallow:",
        "    base: demo_dip",
        "    label: 'U-Net: two stages'",
        "    model: {head: {depth: 2}}",
        "    training: {betas: [0.9, 0.95]}",
        "        Different Patch Detailer Head: [demo_mlp, demo_attention, demo_coordinate, demo_dip, demo_shallow]",
    ]
    assert [line for line in old if line not in new] == [
        "        Different Patch Detailer Head: [demo_mlp, demo_attention, demo_coordinate, demo_dip]"
    ]
    assert load().runs["demo_shallow"].model.head.depth == 2
    assert "runs.demo_shallow, shown in\n  table2: Different Patch Detailer Head\n`" in capsys.readouterr().out
    cli.main(["ablation", "demo_dip", "--set", "model.head.depth=1", "--name", "demo_flat"])
    assert "... results/demo/runs/demo_flat/metrics.json` makes it" in capsys.readouterr().out, "no table asks for it"


def test_other_sampling_takes_the_weights(file: Path) -> None:
    """Wrong: a training of days would be done twice for another guidance scale."""
    run = add_run("dip_xl_16", "dip_xl_16_cfg3", ["sampling.cfg_scale=3.0"], label="guidance 3").runs["dip_xl_16_cfg3"]
    assert (
        "    checkpoint: {run: dip_xl_16}\n    label: guidance 3\n    sampling: {cfg_scale: 3.0}\n" in file.read_text()
    )
    assert (run.training_run, run.sampling.cfg_scale) == ("dip_xl_16", 3.0)
    further = add_run("dip_xl_16_cfg3", "dip_xl_16_heun", ["sampling.solver=heun"]).runs["dip_xl_16_heun"]
    assert (further.training_run, further.sampling.cfg_scale) == ("dip_xl_16", 3.0)
    both = add_run("dip_xl_16", "dip_xl_16_seed1", ["training.seed=1", "sampling.seed=1"]).runs["dip_xl_16_seed1"]
    assert both.training_run == "dip_xl_16_seed1"


def test_panel_of_a_figure(file: Path) -> None:
    """Wrong: the point would stand in a panel that it is not comparable in, or in none."""
    panel = "figure10:(a) width of the head"
    params = add_run("demo_dip_p8", "demo_width64", ["model.head.width=64"], figures=[panel])
    shown = {panel.title: runs for panel in params.figures["figure10"]["demo"].panels for runs in panel.series.values()}
    assert shown["(a) width of the head"] == ("demo_width16", "demo_dip_p8", "demo_width64", "demo_width48")
    assert "demo_width64" not in shown["(a) depth of the head"]
    assert params.runs["demo_width64"].label == "Post-hoc Refinement, model.head.width=64"


@pytest.mark.parametrize("panel", ["figure10", "figure10:FID", "figure10:cost"])
def test_panels_with_one_list(file: Path, panel: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: a choice would be asked for that there is not, or a panel change that nobody hears of."""
    text = file.read_text().replace("title: (b) 32 x 32, x: patch_size, y: fid", "title: FID, x: patch_size, y: fid")
    file.write_text(
        text.replace("title: (b) 32 x 32, x: patch_size, y: gflops", "title: cost, x: patch_size, y: gflops")
    )
    cli.main(["ablation", "demo_dip_p4", "--set", "model.patch_size=8", "--name", "new", "--figure", panel])
    assert "runs.new, shown in\n  figure10: FID\n  figure10: cost\n`" in capsys.readouterr().out


def test_block_lists_and_runs_at_the_end(file: Path) -> None:
    """Wrong: other layouts of YAML would be broken."""
    text = file.read_text()
    flow = "[demo_mlp, demo_attention, demo_coordinate, demo_dip]"
    block = "".join(f"\n        -   {run}" for run in flow.strip("[]").split(", "))
    file.write_text(text.replace(flow, f"{block}  # ours"))
    params = add_run("demo_dip", "demo_wide", ["model.head.width=48"], tables=["table2"])
    assert params.tables["table2"]["demo"].runs[-2:] == ("demo_dip", "demo_wide")
    assert "        -   demo_dip  # ours\n        -   demo_wide\n" in file.read_text()


def test_line_breaks_of_another_system_stay(file: Path) -> None:
    """Wrong: every line would be a changed one for git."""
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    before = file.read_bytes().splitlines(keepends=True)
    add_run("demo_dip", "new", ["model.depth=3"])
    assert set(file.read_bytes().splitlines(keepends=True)) - set(before) == {
        b"  new:\r\n",
        b"    base: demo_dip\r\n",
        b"    label: DiP/8 (Convolutional U-Net), model.depth=3\r\n",
        b"    model: {depth: 3}\r\n",
    }


def test_run_that_ends_in_a_text_of_several_lines(file: Path) -> None:
    """Wrong: the new run would stand in the middle of the next one."""
    lines = "\n  folded:\n    base: demo_dip\n    label: >-\n      U-Net,\n      wider\n\n  next:\n    base: demo_dip\n"
    file.write_text(file.read_text().replace("\nruns:\n", f"\nruns:{lines}"))
    params = add_run("folded", "new", ["model.head.width=48"], label="new")
    assert (params.runs["folded"].label, params.runs["new"].label) == ("U-Net, wider", "new")
    assert "      wider\n  new:\n    base: folded\n" in file.read_text()


def test_layouts_that_are_not_understood(file: Path) -> None:
    """Wrong: a file that is valid would be called no YAML, or a traceback."""
    text = file.read_text()
    inherited = text.replace("\nruns:\n", "\nruns:\n  <<: {demo_new: {base: demo_dip}}\n")
    tab = text.replace("\nstudy: demo  #", "\nstudy: demo\t#")  # which libyaml takes, and PyYAML's own parser does not
    flow = "[demo_mlp, demo_attention, demo_coordinate, demo_dip]"
    shared = text.replace("[demo_dip_ep3, demo_dip_9steps, demo_dip]", "&ours [demo_dip]", 1).replace(flow, "*ours")
    for layout, run in (
        (yaml.safe_dump(yaml.safe_load(text), default_flow_style=True), "demo_dip"),
        (inherited, "demo_new"),
        (tab, "demo_dip"),
        (shared, "demo_dip"),
    ):
        file.write_text(layout)
        with pytest.raises(ValueError, match=r"params\.yaml: its layout is not understood; add the lines by hand"):
            add_run(run, "new", ["model.depth=3"], tables=["table2"] if layout is shared else [])
        assert file.read_text() == layout


@pytest.mark.parametrize(
    ("run", "name", "settings", "shown", "message"),
    [
        ("demo_dipp", "new", ["model.depth=3"], {}, "there is no such run; did you mean 'demo_dip'?"),
        ("demo_dip", "demo_dit", ["model.depth=3"], {}, "runs.demo_dit: there is such a run already"),
        ("demo_dip", "Demo-new", ["model.depth=3"], {}, "expected small letters, digits and _"),
        ("demo_dip", "new", ["model.depth"], {}, "expected key=value, model.head.depth=2 for example"),
        ("demo_dip", "new", ["model.depth = 3"], {}, "--set model.depth = 3: expected key=value"),
        ("demo_dip", "new", ["model.depth=[3"], {}, "the value is not YAML"),
        ("demo_dip", "new", ["model={depth: 3, depth: 4}"], {}, "the key 'depth' stands twice in one mapping"),
        ("demo_dip", "new", ["training=&a {b: *a}"], {}, "line 1, column 1: an alias stands inside of what it is"),
        ("demo_dip", "new", ["model.depth=3"], {"label": ""}, "--label '': expected some text"),
        ("demo_dip", "new", ["model.depth=3"], {"label": "  "}, "--label '  ': expected some text"),
        ("demo_dip", "new", ["model.haed.depth=3"], {}, "params.yaml: runs.new.model.haed: unknown key"),
        ("demo_dip", "new", ["model.head.depth=4"], {}, "runs.new.model.head.depth: 4 stages halve the patch"),
        ("demo_dip", "new", ["model=1", "model.depth=3"], {}, "model has got a value already"),
        ("demo_dip", "new", ["model.depth=3", "model={}"], {}, "model has got a value already"),
        ("demo_dip", "new", ["label=x"], {"label": "z"}, "--set label=x: label has got a value already"),
        ("demo_dip", "new", ["base=demo_dit"], {}, "--set base=demo_dit: base has got a value already"),
        ("demo_dip", "new", ["model.depth=3"], {"tables": ["table9"]}, "tables.table9.demo: there is no such entry"),
        (
            "demo_dip",
            "new",
            ["model.depth=3"],
            {"tables": ["table2:Heads"]},
            "no section 'Heads' of its own lists 'demo_dip'; name the new run there by hand",
        ),
        (
            "demo_dip_p8",
            "new",
            ["model.depth=3"],
            {"figures": ["figure10"]},
            "'demo_dip_p8' is listed in several panels; choose one, --figure \"figure10:(a) depth of the head\" or ",
        ),
    ],
)
def test_a_mistake_leaves_the_file_alone(
    file: Path, run: str, name: str, settings: list[str], shown: dict[str, Any], message: str
) -> None:
    """Wrong: half an edit, or a file that nothing can read any more."""
    before = file.read_bytes()
    with pytest.raises(ValueError) as error:
        add_run(run, name, settings, **shown)
    assert message in str(error.value)
    assert file.read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]
