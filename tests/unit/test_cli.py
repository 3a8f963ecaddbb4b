"""The command line: stages by name, and one line for a mistake."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dip import cli, params
from dip.data.packaged import packaged
from dip.evaluation.stage import SCORES
from dip.launch.jobs import TrainingJob
from dip.launch.launcher import Launcher
from dip.paths import RunFolder, Store
from dip.pipeline import Pipeline
from dip.schema import MilestoneSpec, Run, TrainingSpec


def message(*arguments: str) -> str:
    """What a call that fails says."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert isinstance(stop.value.code, str), "the exit code of a text is 1"
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "dpi"], "dip train: params.yaml: runs.dpi: there is no such run; did you mean 'di"),
        (["sample", "xyz"], "dip sample: params.yaml: runs.xyz: there is no such run; there are dip, dit"),
        (["evaluate", "dipp"], "dip evaluate: params.yaml: runs.dipp: there is no such run"),
        (
            ["prepare", "photo"],
            "dip prepare: params.yaml: datasets.photo: there is no such dataset; did you mean 'photos'",
        ),
        (["reference", "photo"], "dip reference: params.yaml: evaluation.photo: there is no such evaluator"),
        (["features", "adm"], "dip features: params.yaml: evaluation.adm: there is no such evaluator"),
        (["table", "table9"], "dip table: params.yaml: tables.table9: there is no such table; did you mean"),
        (["figure", "figure10", "--study", ""], "dip figure: params.yaml: studies.: there is no such study"),
        (
            ["figure", "figure10", "--study", "paper"],
            "dip figure: params.yaml: figures.figure10.paper: there is no such entry; choose with --study: demo",
        ),
        (
            ["train", "dip_ep2"],
            "dip train: dip_ep2 takes the weights of dip (params.yaml: runs.dip_ep2.checkpoint); run",
        ),
        (["milestone", "dip"], "dip milestone: results/demo/runs/dip: the run takes no milestone"),
        (
            ["train", "dip", "--spec", "{}"],
            "dip train dip: --spec: expected TrainingSpec as JSON; code_version: Field req",
        ),
        (
            ["sample", "dip"],
            "dip sample: results/demo/runs/dip/model.safetensors is missing; make it with `dip train dip`",
        ),
        (["train", "dip", "--launcher", "slurm", "--slurm", "absent.yaml"], "dip train: absent.yaml: cannot be read"),
        (["sample", "dip", "--join", "--processes", "8"], "dip sample: --join helps from this process alone; leave"),
        (["sample", "dip", "--join", "--launcher", "slurm"], "dip sample: --join helps from this process alone; leave"),
    ],
)
def test_mistakes_end_in_one_line(workplace: Path, arguments: list[str], expected: str) -> None:
    """Wrong: a traceback, or an error that does not say which name is wrong."""
    text = message(*arguments)
    assert text.startswith(expected)
    assert "\n" not in text
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--micro-batch", "-2"),
        ("--save-steps", "-1"),
        ("--save-steps", "9" * 60),
        ("--sample-every", "-1"),
        ("--save-seconds", "-1"),
        ("--save-seconds", "nan"),
    ],
)
def test_numbers_out_of_range_are_refused(
    workplace: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    """Wrong: a model that no image was shown would be published, no checkpoint be written, or nothing ever end."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "dip", option, value])
    assert stop.value.code == 2
    assert f"argument {option}: '{value}', expected 0 " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--cfg-scale", "0.5", "expected 1 or more"),
        ("--cfg-scale", "nan", "expected 1 or more"),
        ("--seed", "-1", "expected 0 to 2^63 - 1"),
        ("--seed", "9" * 20, "expected 0 to 2^63 - 1"),
    ],
)
def test_settings_of_a_gallery_are_checked(
    workplace: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, expected: str
) -> None:
    """Wrong: four lines of pydantic that do not name the option."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["gallery", "dip", "--classes", "0", option, value])
    assert stop.value.code == 2
    assert f"argument {option}: '{value}', {expected}" in capsys.readouterr().err


def test_options_are_not_shortened(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong: a script that shortens an option would do something else, or nothing, once there is another like it."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "dip", "--save-st", "1"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --save-st 1" in capsys.readouterr().err


def test_run_with_the_weights_of_another_is_not_trained(workplace: Path) -> None:
    """Wrong: the last epoch's weights would be published in the place of an early epoch's."""
    run = params.load().runs["dip_ep2"]
    for options in ([], ["--spec", run.part(TrainingSpec).canonical()]):
        assert message("train", "dip_ep2", *options).endswith("; run `dip train dip`, then `dip milestone dip_ep2`")
    assert message("train", "dip_2steps").endswith("; run `dip train dip`; dip_2steps samples with its weights")
    assert not Path("work").exists()


@pytest.mark.parametrize(
    "arguments", [("train", "dip"), ("ablation", "dip", "--set", "model.depth=3", "--name", "deeper")]
)
def test_call_outside_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    """Wrong: a traceback about a missing file, or no hint where to go."""
    monkeypatch.chdir(tmp_path)
    expected = "params.yaml: cannot be read (No such file or directory); run from the repository's folder"
    assert expected in message(*arguments)


def test_reader_that_has_seen_enough(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    """Wrong: `dip explain FILE | head` would end with an error."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr("sys.stdout", stdout)
        with pytest.raises(SystemExit) as stop:
            cli.main(["status"])
    assert stop.value.code == 1
    assert capfd.readouterr().err == ""


def test_reader_that_ends_in_the_middle_of_much(workplace: Path) -> None:
    """Wrong: the rest of an output that does not fit into a pipe would end with "Broken pipe"."""
    call = [sys.executable, "-c", "from dip import cli; cli.main()", "explain", "--parameters", "results", "data"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_stdout_that_the_caller_closed(workplace: Path) -> None:
    """Wrong: a traceback at the end of a stage that did its work."""
    code = "from dip import cli; cli.main(['status'])"
    call = f'{sys.executable} -c "{code}" >&-'
    done = subprocess.run(call, shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_our_own_errors_keep_their_traceback(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a mistake of the program would look like one of the user and could not be found."""
    for error in (RuntimeError("shape mismatch"), AssertionError("ours")):

        def broken(*arguments: object, error: Exception = error, **settings: object) -> None:
            raise error

        monkeypatch.setattr("dip.launch.launcher.launch", broken)
        with pytest.raises(type(error)):
            cli.main(["train", "dip"])


def test_lack_of_memory_is_one_line(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a number with too many digits in params.yaml would look like a mistake of the program."""
    for ask in (
        lambda: np.empty((10**9, 10**9), np.uint8),
        lambda: torch.empty(10**9, 10**9, dtype=torch.uint8),
        lambda: torch.empty(10**12, 10**12, dtype=torch.uint8),
        lambda: bytes(10**18),
    ):
        monkeypatch.setattr("dip.launch.launcher.launch", lambda *arguments, ask=ask: ask())
        text = message("train", "dip")
        assert text.startswith("dip train: not enough memory (")
        assert "\n" not in text


def test_interruption_says_how_to_go_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wrong: a user would think that all is lost."""

    def interrupted(*arguments: object, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dip.launch.launcher.launch", interrupted)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "dip"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "dip train: interrupted; run the same command again to go on\n"


def test_planned_parameters_hold(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: params.yaml, edited while a workflow runs, would change jobs that were planned before."""
    seen: list[TrainingSpec] = []

    def launch(job: TrainingJob, launcher: Launcher) -> None:
        seen.append(job.spec)
        for path in job.outputs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"git_revision": "abc", "python": "3", "packages": {}}))

    monkeypatch.setattr("dip.launch.launcher.launch", launch)
    planned = params.load().runs["dip"].part(TrainingSpec)
    cli.main(["train", "dip", "--spec", planned.canonical()])
    assert "has changed" not in caplog.text
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("depth: 2", "depth: 1"))
    with caplog.at_level(logging.WARNING):
        cli.main(["train", "dip", "--spec", planned.canonical()])
    assert "params.yaml has changed since this job was planned" in caplog.text
    made = json.loads(RunFolder.of("demo", "dip").folder.joinpath("model.provenance.json").read_text())
    assert made["parameters"]["runs.dip.model"]["depth"] == 2
    cli.main(["train", "dip"])
    assert [spec.model.depth for spec in seen] == [2, 2, 1]
    made = json.loads(RunFolder.of("demo", "dip").folder.joinpath("model.provenance.json").read_text())
    assert made["parameters"]["runs.dip.model"]["depth"] == 1
    assert made["code"]["git_revision"] == "abc", "the revision that trained, not the one that publishes"


@pytest.mark.parametrize(
    ("command", "rule", "name", "work"),
    [
        ("photograph", "photograph", "coins.png", "data.packaged.copy_photograph"),
        ("prepare", "prepare", "photos", "data.prepare.prepare"),
        ("features", "feature_network", "photos", "evaluation.photo_network.save_photo_network"),
        ("reference", "reference", "photos", "evaluation.stage.make_reference"),
        ("train", "train", "dip", "launch.launcher.launch"),
        ("milestone", "milestone", "dip_ep2", "launch.jobs.publish_milestone"),
        ("sample", "sample", "dip", "launch.launcher.launch"),
        ("latency", "latency", "dip", "launch.launcher.launch"),
        ("evaluate", "evaluate", "dip", "launch.launcher.launch"),
        ("table", "table", "table2", "reporting.study_tables.write_table"),
        ("experiment", "experiment", "theory", "reporting.study_figures.run_experiment"),
        ("figure", "figure", "figure10", "reporting.study_figures.draw_figure"),
    ],
)
def test_params_may_go_while_a_job_is_at_work(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    rule: str,
    name: str,
    work: str,
) -> None:
    """Wrong: days of work, whose run was renamed meanwhile, would end in a traceback and without provenance."""
    file = Path("params.yaml")
    text = file.read_text().replace("image_size: 8", "image_size: 16")
    text = text.replace("{name: inception}", "{name: photo, dataset: photos}")
    file.write_text(text + "  theory: {demo: {kind: theory, caption: Operators.}}\n")
    job = Pipeline(params.load()).find(rule, name, "demo")
    numbers = dict.fromkeys((*SCORES, "latency_seconds", "images_per_second", "best_batch_size"), 2.5)
    content = json.dumps({"git_revision": "abc", "python": "3", "packages": {}, "deviations": [], **numbers})

    def stand_in(*arguments: object, **settings: object) -> None:
        for path in job.outputs.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        file.unlink()

    for path in job.input_files:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    monkeypatch.setattr(f"dip.{work}", stand_in)
    monkeypatch.setattr("dip.evaluation.photo_network.train_photo_network", lambda *arguments, **settings: None)
    cli.main([command, name])
    made = json.loads(job.provenance.read_text())
    assert made["made_by"] == job.title
    assert made["parameters"] == json.loads(json.dumps(job.parameters))
    printed = capsys.readouterr().out.splitlines()
    assert str(next(iter(job.outputs.values()))) in printed, "nobody would know where the result is"
    assert ("fid 2.5" in printed, "latency_seconds 2.5" in printed) == (command == "evaluate", command == "latency")


def test_a_photograph_whose_copying_was_killed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: it would be there without provenance for ever, however often the stage is called."""
    pipeline = Pipeline(params.load())
    photograph, dataset = pipeline.find("photograph", "coins.png"), pipeline.find("prepare", "photos")
    photograph.outputs["image"].parent.mkdir(parents=True)
    photograph.outputs["image"].write_bytes(packaged("coins").read_bytes())

    def prepare(*arguments: object, **settings: object) -> None:
        for path in dataset.outputs.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("made")

    monkeypatch.setattr("dip.data.prepare.prepare", prepare)
    cli.main(["prepare", "photos"])
    assert json.loads(photograph.provenance.read_text())["made_by"] == photograph.title
    assert photograph.outputs["image"].read_bytes() == packaged("coins").read_bytes()


def test_a_photograph_that_nothing_uses(workplace: Path) -> None:
    """Wrong: a traceback after a file has been written that no job has."""
    expected = "dip photograph: params.yaml: no dataset or figure uses the photograph 'moon'"
    assert message("photograph", "moon") == expected
    assert not Path("data/photographs").exists()


@pytest.mark.slow
def test_stages_follow_each_other(workplace: Path) -> None:
    """Wrong: a stage would not find what the one before wrote: prepare, train, milestone, sample, latency."""
    for file in Store.of("photos").folder.iterdir():
        file.unlink()
    cli.main(["prepare", "photos"])
    cli.main(["train", "dip"])
    cli.main(["milestone", "dip_ep2"])
    for name in ("dip", "dip_ep2", "dip_2steps"):
        cli.main(["sample", name, "--batch-size", "4"])
    cli.main(["latency", "dip_2steps"])
    folders = {name: RunFolder.of("demo", name) for name in ("dip", "dip_ep2", "dip_2steps")}
    samples = [np.load(folder.samples)["arr_0"] for folder in folders.values()]
    assert all(images.shape == (10, 8, 8, 3) for images in samples)
    assert (samples[0] != samples[1]).any() and (samples[0] != samples[2]).any()
    assert "there is no sampling to join" in message("sample", "dip", "--join")
    assert not folders["dip_2steps"].model.exists(), "it samples with the weights of the run it names"
    assert json.loads(folders["dip_2steps"].latency.read_text())["num_steps"] == 2


def test_weights_of_a_run(workplace: Path) -> None:
    """Wrong: the last epoch or the main decay, named by its number, would be looked for among the milestones."""
    runs = params.load().runs

    def folder_of_weights(run: Run) -> str:
        return RunFolder.of(run.study, run.name).weights(run).parent.name

    assert folder_of_weights(runs["dip"]) == "dip"
    assert folder_of_weights(runs["dip_2steps"]) == "dip"
    assert folder_of_weights(runs["dip_ep2"]) == "dip_ep2"
    checkpoint = runs["dip_ep2"].checkpoint
    assert checkpoint is not None
    named = {
        (4, None): "dip",
        (4, 0.5): "dip",
        (None, 0.5): "dip",
        (2, 0.5): "dip_ep2",
        (4, 0.9): "dip_ep2",
        (None, 0.9): "dip_ep2",
    }
    for (epoch, decay), folder in named.items():
        changes = {"checkpoint": checkpoint.model_copy(update={"epoch": epoch, "ema_decay": decay})}
        assert folder_of_weights(runs["dip_ep2"].model_copy(update=changes)) == folder, (epoch, decay)


def test_weights_of_another_average(workplace: Path) -> None:
    """Wrong: a sweep of EMA decays would sample with the training's own average, or say that it did."""
    content = Path("params.yaml").read_text().replace("milestones: [2]", "milestones: [2], ema_decays: [0.9]")
    last, early = "{run: dip, ema_decay: 0.9}", "{run: dip, epoch: 2, ema_decay: 0.9}"
    rows = f"  dip_ema: {{checkpoint: {last}}}\n  dip_early: {{checkpoint: {early}}}\n"
    Path("params.yaml").write_text(content.replace("tables:", f"{rows}tables:"))
    cli.main(["train", "dip"])
    weights = {RunFolder.of("demo", "dip").model.read_bytes()}
    for name, epochs in (("dip_ep2", 2), ("dip_ema", 4), ("dip_early", 2)):
        folder = RunFolder.of("demo", name)
        cli.main(["milestone", name])
        weights.add(folder.model.read_bytes())
        cli.main(["sample", name])
        said = json.loads(folder.sampling.read_text())["weights"]
        assert (said["epochs"], said["ema_decay"]) == (epochs, 0.5 if name == "dip_ep2" else 0.9)
    assert len(weights) == 4
    for kept in Path("work").glob("dip-*/milestone-0004-ema0.9.safetensors"):
        kept.unlink()
    assert "the weights of epoch 4 and EMA decay 0.9 were removed; remove work/dip-" in message("milestone", "dip_ema")


def test_milestone_depends_on_no_sampler(workplace: Path) -> None:
    """Wrong: another number of sampling steps would copy weights again."""
    planned = params.load().runs["dip_ep2"].part(MilestoneSpec).canonical()
    path = Path("params.yaml")
    path.write_text(path.read_text().replace("num_steps: 4", "num_steps: 5"))
    assert params.load().runs["dip_ep2"].part(MilestoneSpec).canonical() == planned
