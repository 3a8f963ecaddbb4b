"""DVC over the same results: recording, clones, experiments, failures, caches and refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from project import Repository

TABLE1 = "results/demo/table1.csv"
MARKDOWN = "results/demo/table1.md"
CAPTION = ("caption: One training.", "caption: Another caption.")


@pytest.fixture(scope="module")
def shared(_recorded: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository for tests that put back what they change; it has a remote."""
    repository = _recorded.copy(tmp_path_factory.mktemp("shared") / "project")
    repository.dvc("remote", "add", "--default", "store", str(tmp_path_factory.mktemp("store")))
    repository.run("dvc", "push")
    repository.commit()
    return repository


def recorded_stages(output: str) -> set[str]:
    """Stages that a call of DVC has run."""
    return set(re.findall(r"Running stage '(?:studies/demo/)?([^']+)'", output))


def rules_run(output: str) -> set[str]:
    """Rules that Snakemake has run."""
    return set(re.findall(r"^\s*(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all"}


def test_recording_changes_nothing_for_snakemake(shared: Repository) -> None:
    """Wrong: after `dvc repro`, one of the tools would make again what both have."""
    assert shared.is_clean()
    assert shared.plan() == set()
    assert recorded_stages(shared.run("dvc", "repro")) == set()


def test_clone_and_pull_then_one_edit(shared: Repository, tmp_path: Path) -> None:
    """Wrong: a clone would train everything again, or miss an edit; results would depend on who made them."""
    clone = shared.clone(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert clone.plan() == set()
    assert clone.is_clean(), "Snakemake has taken over the results without changing any"
    clone.edit("epoch: 1}}", "epoch: 1}, sampling: {num_steps: 3}}")
    assert clone.plan() == {"sample dip_ep1", "latency dip_ep1", "evaluate dip_ep1", "table table1"}
    clone.edit("epoch: 1}, sampling: {num_steps: 3}}", "epoch: 1}}")
    clone.edit(*CAPTION)
    assert clone.plan() == {"table table1"}
    output = clone.run("dvc", "repro")
    assert recorded_stages(output) - {"dvc.yaml:recorded"} == {"resolve", "build", "dvc.yaml:table-table1"}
    assert rules_run(output) == {"table"}
    assert clone.is_clean()
    assert clone.plan() == set()


def test_results_of_another_commit_and_cache_types(recorded: Repository) -> None:
    """Wrong: after a checkout Snakemake would make again what is back; or a link would lead a write into the cache."""
    contents = [recorded.content(MARKDOWN)]
    for number, kind in enumerate(("hardlink", "symlink", "copy")):
        recorded.dvc("config", "cache.type", kind)
        recorded.dvc("checkout", "--relink")
        for path in (recorded.folder / ".dvc/cache").rglob("*"):
            if path.is_file():
                path.chmod(0o444)
        assert (recorded.folder / MARKDOWN).is_symlink() == (kind == "symlink")
        recorded.edit(
            f"caption: {f'Caption {number - 1}.' if number else 'One training.'}", f"caption: Caption {number}."
        )
        assert rules_run(recorded.run("dvc", "repro")) == {"table"}
        recorded.commit()
        contents.append(recorded.content(MARKDOWN))
    assert len(set(contents)) == 4
    recorded.run("git", "checkout", "--quiet", "HEAD~2")
    recorded.dvc("checkout")
    assert recorded.content(MARKDOWN) == contents[1]
    assert recorded.plan() == set()
    assert recorded.is_clean()
    recorded.dvc("gc", "--workspace", "--force")
    assert recorded.is_clean()


def test_experiments_here_and_in_the_queue(recorded: Repository) -> None:
    """Wrong: an experiment would make more than its edit, lose its results, or leave the folder in disorder."""
    change = "tables.table1.demo.caption=Queued"
    recorded.run("dvc", "exp", "run", "--queue", "--set-param", change, "--name", "queued")
    recorded.run("dvc", "queue", "start")
    change = "runs.dip.label=Renamed"
    output = recorded.run("dvc", "exp", "run", "--set-param", change, "--name", "label")
    assert rules_run(output) == {"table"}
    assert recorded.is_clean()
    assert "Renamed" in recorded.content("results/demo/table2.csv").decode()
    end = time.monotonic() + 200
    while "Success" not in (status := recorded.dvc("queue", "status")):
        assert "Failed" not in status and time.monotonic() < end, recorded.dvc("queue", "logs", "queued")
        time.sleep(1)
    log = recorded.dvc("queue", "logs", "queued")
    assert "taken over" in log
    assert rules_run(log) == {"table"}
    assert "Queued" not in recorded.content(MARKDOWN).decode(), "a queued experiment leaves this folder alone"
    changes = json.loads(recorded.run("dvc", "exp", "diff", "label", "queued", "--json"))
    assert changes["params"]["studies/demo/params.json"]["tables.table1.demo.caption"]["new"] == "Queued"
    shown = recorded.run("dvc", "exp", "show", "--csv")
    assert "label" in shown and "queued" in shown and "results/demo/runs/dip/scores.json:fid" in shown
    columns = recorded.run("dvc", "exp", "show", "--only-changed", "--drop", "[^:]*/[^:]*$", "--csv").splitlines()[0]
    assert "caption" in columns and "table1.csv" not in columns, "as docs/dvc.md has it"
    recorded.run("git", "checkout", ".")
    recorded.run("dvc", "exp", "apply", "queued")
    assert "Queued" in recorded.content(MARKDOWN).decode()
    assert recorded.plan() == set()
    assert recorded.is_clean()


def test_recorded_before_it_is_made(recorded: Repository) -> None:
    """Wrong: `dvc exp save` after an edit would hide for good that a table is stale; docs/dvc.md has a way out."""
    recorded.edit(*CAPTION)
    recorded.run("dvc", "exp", "save")
    assert recorded.is_clean(), "DVC records what it is told to"
    assert recorded.plan() == {"table table1"}
    recorded.run("dip", "stages")
    assert not recorded.is_clean()
    assert rules_run(recorded.run("dvc", "repro")) == {"table"}
    assert recorded.is_clean()
    assert recorded.plan() == set()


def test_frozen_stage_is_not_stale(recorded: Repository) -> None:
    """Wrong: `dvc freeze` would keep a table of other parameters under the name of these."""
    recorded.run("dvc", "freeze", "studies/demo/dvc.yaml:table-table1")
    recorded.edit(*CAPTION)
    assert rules_run(recorded.run("dvc", "repro")) == {"table"}
    assert recorded.is_clean()
    assert "Another caption." in recorded.content(MARKDOWN).decode()
    assert "frozen" not in recorded.content("studies/demo/dvc.yaml").decode()


def test_weights_of_other_parameters_are_not_recorded(recorded: Repository) -> None:
    """Wrong: DVC would push weights of a learning rate that params.yaml does not have."""
    tried, model = ("learning_rate: 1.0e-3", "learning_rate: 5.0e-2"), "results/demo/runs/dit/model.safetensors"
    weights = recorded.content(model)
    recorded.edit(*tried)
    recorded.run("dip", "train", "dit")
    recorded.edit(*reversed(tried))
    assert "train" in rules_run(recorded.run("dvc", "repro"))
    assert recorded.content(model) == weights
    assert recorded.is_clean()
    assert recorded.plan() == set()


def test_half_a_dataset_is_not_recorded(recorded: Repository) -> None:
    """Wrong: DVC would push a manifest without images; or what was trained on them would be trained again."""
    (shard,) = recorded.folder.glob("data/photos16/images-*.npy")
    shard.unlink()
    assert "is missing" in recorded.command("dip", "explain", "data/photos16/manifest.json").stdout
    lock = recorded.content("studies/demo/data/dvc.lock")
    result = recorded.command("dvc", "repro")
    assert result.returncode != 0 and f"{shard.name}: missing; `dip prepare photos16` makes it again" in result.stdout
    assert recorded.content("studies/demo/data/dvc.lock") == lock
    recorded.run("dip", "prepare", "photos16")
    recorded.run("dvc", "repro")
    assert recorded.plan() == set() and recorded.is_clean()


def test_another_study_in_one_call(recorded: Repository) -> None:
    """Wrong: a study that DVC does not know yet would have to be asked for twice, or would never be recorded."""
    for old, new in (
        ("studies:\n", "studies:\n  small: {title: Small, description: A figure.}\n"),
        ("figures:\n", "figures:\n  theory:\n    small: {kind: theory, caption: Operators., num_times: 9}\n"),
    ):
        recorded.edit(old, new)
    recorded.run("dvc", "exp", "run", "--set-param", "study=small", "--name", "small")
    assert (recorded.folder / "results/small/theory.pdf").exists()
    assert recorded.is_clean()
    assert "figure-theory" in recorded.dvc("stage", "list", "studies/small/dvc.yaml")
    (experiment,) = re.findall(r"(\S+) \S+/small$", recorded.run("git", "show-ref"), re.MULTILINE)
    assert "studies/small/dvc.lock" in recorded.run("git", "ls-tree", "-r", "--name-only", experiment)


def test_a_failure_in_the_middle(recorded: Repository) -> None:
    """Wrong: a table made from the old photograph would pass for up to date in either tool."""
    (recorded.folder / "data/photographs/coffee.png").write_bytes(b"no photograph")
    for command in (("snakemake", "--profile", "workflow/profiles/demo"), ("dvc", "repro")):
        result = recorded.command(*command)
        assert result.returncode != 0
        assert "data/photographs/coffee.png cannot be read" in result.stdout
        assert {"prepare photos16", "table table1", "table table2", "figure figure10"} <= recorded.plan()
        assert "prepare-photos16" in recorded.dvc("status")
        assert list((recorded.folder / "work").glob("dip-*/model.safetensors")), "trainings stay"


def test_one_stage_alone(recorded: Repository) -> None:
    """Wrong: who asks DVC for one table would get everything, one after the other, or a stale table."""
    recorded.edit(*CAPTION)
    before = "Two trainings."
    for number, call in enumerate(
        (
            "dvc repro studies/demo/dvc.yaml:table-table2",
            "cd studies/demo && dvc repro table-table2",
            "dvc --cd studies/demo repro dvc.yaml:table-table2",
        )
    ):
        recorded.edit(f"caption: {before}", f"caption: Others {number}.")
        before = f"Others {number}."
        output = recorded.run("bash", "-c", call)
        assert output.count("dip table") == 0 and rules_run(output) == {"table"}, call
        assert recorded.plan() == {"table table1"}, call
    output = recorded.run("dvc", "repro")
    assert recorded_stages(output) >= {"dvc.yaml:table-table1"}
    assert recorded.is_clean()
    assert recorded.plan() == set()


def test_runs_come_and_go(recorded: Repository) -> None:
    """Wrong: DVC would go on looking for a run that params.yaml has no more, or never see a new one."""
    recorded.edit("  dip_ep1: {label", "  last: {label: DiP at its end, checkpoint: {run: dip}}\n  dip_ep1: {label")
    recorded.edit("Patch Detailer Head: [dip]", "Patch Detailer Head: [dip, last]")
    output = recorded.run("dvc", "repro")
    assert "this call of DVC has the earlier ones: run the same command again to record all" in output
    assert not recorded.is_clean()
    assert rules_run(recorded.run("dvc", "repro")) == set()
    assert recorded.is_clean()
    recorded.edit("  last: {label: DiP at its end, checkpoint: {run: dip}}\n", "")
    recorded.edit("Patch Detailer Head: [dip, last]", "Patch Detailer Head: [dip]")
    result = recorded.command("dvc", "repro")
    assert "still has those that are gone: run the same command again" in result.stdout
    recorded.run("dvc", "repro")
    assert recorded.is_clean()
    assert recorded.plan() == set()
    assert not (recorded.folder / "studies/demo/runs/last").exists()


def test_displays(shared: Repository) -> None:
    """Wrong: nothing that a person wants to read, or an error."""
    metrics = shared.dvc("metrics", "show", "--md")
    assert "| results/demo/runs/dip/scores.json " in metrics
    assert [word.strip() for word in metrics.splitlines()[0].strip("|").split("|")] == [
        *("Path", "fid", "inception_score", "precision", "recall", "sfid"),
    ]
    shared.dvc("plots", "show", "--out", "plots")
    page = (shared.folder / "plots/index.html").read_text()
    assert "velocity loss" in page and "figure10.png" in page
    shared.edit("cfg_scale: 1.5", "cfg_scale: 1.6")
    shared.run("dip", "stages")
    changes = shared.dvc("params", "diff")
    assert "sampling.tiny.cfg_scale" in changes and "runs.dip_ep1.sampling.cfg_scale" in changes
    shared.run("git", "checkout", ".")
    assert "train" in shared.dvc("dag", "studies/demo/runs/dit/dvc.yaml:evaluate")


def test_dvc_waits_for_snakemake(shared: Repository) -> None:
    """Wrong: DVC would record files that Snakemake is writing."""
    shared.edit(*CAPTION)
    program = ["-c", "import time; open('ready', 'w').close(); time.sleep(60)"]
    with subprocess.Popen(["snakemake", *program], executable=sys.executable, cwd=shared.folder) as stand_in:
        try:
            while not (shared.folder / "ready").exists():
                time.sleep(0.05)
            result = shared.command("dvc", "repro")
        finally:
            stand_in.kill()
            (shared.folder / "ready").unlink()
            shared.run("git", "checkout", ".")
    assert result.returncode != 0
    assert f"Snakemake is at work in this folder (process {stand_in.pid}); wait for it" in result.stdout


def test_snakemake_waits_for_dvc(shared: Repository) -> None:
    """Wrong: Snakemake would write files that DVC is moving into its cache."""
    lock = shared.folder / ".dvc/tmp/lock"
    hold = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = subprocess.Popen(
            ["snakemake", "--profile", "workflow/profiles/demo", "--dry-run"],
            cwd=shared.folder,
            env=shared.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert waiting.stdout is not None
        for line in waiting.stdout:
            if "DVC is at work in this folder" in line:
                break
        else:
            raise AssertionError("it has not waited")
        holder.kill()
    output, _ = waiting.communicate(timeout=60)
    assert "Nothing to be done" in output


@pytest.mark.parametrize(
    ("prepare", "command", "message"),
    [
        ("dvc remote remove store", "dvc push", "no remote specified"),
        (
            "git add --force results/demo/table1.csv",
            "dvc repro --force --single-item studies/demo/dvc.yaml:table-table1",
            "git rm -r --cached 'results/demo/table1.csv'",
        ),
        ("sed -i 's/demo: workflow/dem: workflow/' dvc.yaml", "dip build demo", "dvc.yaml: no profile of Snakemake is"),
        (
            "sed -i 's/^study: demo/study: dmeo/' params.yaml",
            "dvc repro",
            "params.yaml: study: there is no study 'dmeo'",
        ),
        ("rm -r .dvc/cache; rm results/demo/table1.csv", "dvc checkout", "Is your cache up to date?"),
    ],
)
def test_refusals(shared: Repository, prepare: str, command: str, message: str) -> None:
    """Wrong: nobody would know what to do."""
    shared.run("bash", "-c", prepare)
    result = shared.command("bash", "-c", command)
    shared.run("git", "reset", "--quiet", "--hard")
    shared.dvc("pull")
    assert result.returncode != 0
    assert message in " ".join(result.stdout.split())
    assert "Traceback" not in result.stdout
