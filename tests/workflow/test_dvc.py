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

TABLE1, RUN = "results/demo/table1.csv", "results/demo/runs/dip_ep1"
SAMPLING = ("checkpoint: {run: dip, epoch: 1}}", "checkpoint: {run: dip, epoch: 1}, sampling: {num_steps: 3}}")
OF_RUN = {"sample dip_ep1", "latency dip_ep1", "evaluate dip_ep1", "table table1"}


def recorded_stages(output: str) -> set[str]:
    """Stages that a call of DVC has run."""
    return set(re.findall(r"Running stage '(?:studies/demo/)?([^']+)'", output))


def test_recording_changes_nothing_for_snakemake(recorded: Repository) -> None:
    """Wrong: after `dvc repro`, one of the tools would make again what both have."""
    assert recorded.is_clean()
    assert recorded.plan() == set()
    assert recorded_stages(recorded.run("dvc", "repro")) == set()


def test_clone_and_pull_then_one_edit(recorded: Repository, tmp_path: Path) -> None:
    """Wrong: a clone would train everything again, or miss an edit; results would depend on who made them."""
    recorded.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    recorded.run("dvc", "push")
    recorded.commit()
    clone = recorded.clone(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert clone.is_clean()
    assert clone.plan() == set()
    assert clone.is_clean(), "Snakemake has taken over the results without changing any"
    clone.edit(*SAMPLING)
    assert clone.plan() == OF_RUN
    output = clone.run("dvc", "repro")
    assert recorded_stages(output) == {
        *("resolve", "build", "dvc.yaml:table-table1", "dvc.yaml:recorded"),
        *(f"runs/dip_ep1/dvc.yaml:{rule}" for rule in ("sample", "latency", "evaluate")),
    }
    assert clone.is_clean()
    assert clone.plan() == set()


def test_results_of_another_commit(recorded: Repository) -> None:
    """Wrong: after `git checkout` and `dvc checkout`, Snakemake would make again what has just been brought back."""
    before = recorded.content(TABLE1)
    recorded.edit(*SAMPLING)
    recorded.run("dvc", "repro")
    recorded.commit()
    assert recorded.content(TABLE1) != before
    recorded.run("git", "checkout", "--quiet", "HEAD~1")
    recorded.run("dvc", "checkout")
    assert recorded.content(TABLE1) == before
    assert recorded.plan() == set()
    assert recorded.is_clean()


def test_experiments_here_and_in_the_queue(recorded: Repository) -> None:
    """Wrong: an experiment would train more than its edit, lose its results, or leave the folder in disorder."""
    recorded.run("dvc", "exp", "run", "--set-param", "runs.dip.label=Renamed", "--name", "label")
    assert recorded.is_clean()
    assert recorded.plan() == set()
    assert "Renamed" in recorded.content("results/demo/table2.csv").decode()
    recorded.run("git", "checkout", "--quiet", "--", ".")
    recorded.run("dvc", "checkout")
    assert "Renamed" not in recorded.content("results/demo/table2.csv").decode()
    change = "+runs.dip_ep1.sampling.num_steps=3"
    recorded.run("dvc", "exp", "run", "--queue", "--set-param", change, "--name", "steps")
    recorded.run("dvc", "queue", "start")
    end = time.monotonic() + 240
    while "Success" not in (status := recorded.run("dvc", "queue", "status")):
        assert "Failed" not in status and time.monotonic() < end, recorded.run("dvc", "queue", "logs", "steps")
        time.sleep(1)
    log = recorded.run("dvc", "queue", "logs", "steps")
    assert set(re.findall(r"^(?:local)?rule (\w+):", log, re.MULTILINE)) <= {
        "sample",
        "latency",
        "evaluate",
        "table",
        "all",
    }
    assert recorded.is_clean(), "a queued experiment leaves this folder alone"
    changes = json.loads(recorded.run("dvc", "exp", "diff", "HEAD", "steps", "--json"))
    assert changes["params"]["studies/demo/params.json"]["runs.dip_ep1.sampling.num_steps"]["new"] == 3
    assert f"{RUN}/scores.json" in changes["metrics"]
    recorded.run("dvc", "exp", "apply", "steps")
    assert recorded.plan() == set()
    assert recorded.is_clean()


def test_another_study_in_one_call(recorded: Repository) -> None:
    """Wrong: a study that DVC does not know yet would have to be asked for twice, or would never be recorded."""
    text = recorded.params.replace("studies:\n", "studies:\n  small: {title: Small, description: The same.}\n")
    text = text.replace("  dip_ep1: {label", "  small_dit: {base: dit, study: small, label: Small}\n  dip_ep1: {label")
    text = text.replace(
        "tables:\n", "tables:\n  small:\n    small: {caption: S., layout: table3, sections: {A: [small_dit]}}\n"
    )
    (recorded.folder / "params.yaml").write_text(text)
    recorded.run("dvc", "repro")
    recorded.commit()
    recorded.run("dvc", "exp", "run", "--set-param", "study=small")
    assert (recorded.folder / "results/small/small.csv").exists()
    assert recorded.is_clean()
    assert "evaluate" in recorded.run("dvc", "stage", "list", "studies/small/runs/small_dit/dvc.yaml")


def test_a_failure_in_the_middle(recorded: Repository) -> None:
    """Wrong: a table made from the old photograph would pass for up to date in either tool."""
    photograph = recorded.folder / "data/photographs/coffee.png"
    kept = photograph.read_bytes()
    photograph.write_bytes(b"no photograph")
    for command in (("snakemake", "--profile", "workflow/profiles/demo"), ("dvc", "repro")):
        result = recorded.command(*command)
        assert result.returncode != 0
        assert "data/photographs/coffee.png cannot be read" in result.stdout
        plan = recorded.plan()
        assert {"prepare photos16", "table table1", "table table2", "figure figure10"} <= plan
        assert "prepare-photos16" in recorded.run("dvc", "status")
    photograph.write_bytes(kept)
    assert recorded.plan() >= {"prepare photos16"}
    recorded.run("dvc", "repro")
    assert recorded.plan() == set()
    assert recorded.is_clean()


def test_one_stage_alone(recorded: Repository) -> None:
    """Wrong: who asks DVC for one table would get everything, one after the other, or a stale table."""
    recorded.edit("cfg_scale: 1.5", "cfg_scale: 1.6")
    output = recorded.run("dvc", "repro", "studies/demo/runs/dit/dvc.yaml:evaluate")
    made = set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE))
    assert made == {"sample", "evaluate"}
    assert "evaluate dit" not in recorded.plan()
    recorded.run("dvc", "repro")
    assert recorded.is_clean()
    assert recorded.plan() == set()


def test_a_run_that_goes(recorded: Repository) -> None:
    """Wrong: DVC would go on looking for the stages of a run that params.yaml has no more."""
    recorded.edit("  dip_ep1: {label: DiP after one epoch, checkpoint: {run: dip, epoch: 1}}\n", "")
    recorded.edit("Generative Models: [dip_ep1]", "Generative Models: [dip]")
    output = recorded.run("dvc", "repro")
    if not recorded.is_clean():
        assert "run the same command again" in output
        recorded.run("dvc", "repro")
    assert recorded.is_clean()
    assert recorded.plan() == set()
    assert not (recorded.folder / "studies/demo/runs/dip_ep1").exists()


@pytest.mark.parametrize("kind", ["hardlink", "symlink", "copy", "reflink,copy"])
def test_cache_types(recorded: Repository, kind: str) -> None:
    """Wrong: a new result would be written through a link into the cache, over the recorded one."""
    before = recorded.content(TABLE1)
    recorded.run("dvc", "config", "cache.type", kind)
    recorded.run("dvc", "checkout", "--relink")
    recorded.commit()
    assert recorded.plan() == set()
    for path in (recorded.folder / ".dvc/cache").rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    recorded.edit(*SAMPLING)
    recorded.run("dvc", "repro")
    assert recorded.content(TABLE1) != before
    assert recorded.is_clean()
    recorded.run("dvc", "gc", "--workspace", "--force")
    assert recorded.is_clean()
    assert recorded.plan() == set()


def test_removed_cache_is_pulled_or_explained(recorded: Repository) -> None:
    """Wrong: with the cache gone, DVC's message would not say where to get the files."""
    (recorded.folder / TABLE1).unlink()
    for path in (recorded.folder / ".dvc/cache/files").rglob("*"):
        if path.is_file():
            path.unlink()
    result = recorded.command("dvc", "checkout")
    assert result.returncode != 0
    result = recorded.command("dvc", "pull")
    assert "no remote specified" in result.stdout or "remote" in result.stdout
    recorded.run("dvc", "repro")
    assert recorded.is_clean()


def test_dvc_waits_for_snakemake(recorded: Repository) -> None:
    """Wrong: DVC would record files that Snakemake is writing."""
    recorded.edit("epochs: 2, batch_size: 8", "epochs: 200, batch_size: 8")
    with subprocess.Popen(
        ["snakemake", "--profile", "workflow/profiles/demo"],
        cwd=recorded.folder,
        env=recorded.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            end = time.monotonic() + 60
            while not list((recorded.folder / ".snakemake/locks").glob("*")):
                assert time.monotonic() < end
                time.sleep(0.1)
            result = recorded.command("dvc", "repro")
        finally:
            process.terminate()
    assert result.returncode != 0
    assert f"Snakemake is at work in this folder (process {process.pid})" in result.stdout
    assert "wait for it" in result.stdout


def test_snakemake_waits_for_dvc(recorded: Repository) -> None:
    """Wrong: Snakemake would write files that DVC is moving into its cache."""
    (recorded.folder / ".dvc/tmp").mkdir(exist_ok=True)
    lock = recorded.folder / ".dvc/tmp/lock"
    hold = "import fcntl, sys; fcntl.flock(open(sys.argv[1], 'a'), fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = subprocess.Popen(
            ["snakemake", "--profile", "workflow/profiles/demo", "--dry-run"],
            cwd=recorded.folder,
            env=recorded.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        time.sleep(6)
        assert waiting.poll() is None
        holder.kill()
    output, _ = waiting.communicate(timeout=60)
    assert "DVC is at work in this folder" in output
    assert "Nothing to be done" in output


@pytest.mark.parametrize(
    ("prepare", "command", "message"),
    [
        ("git rm --cached -q nothing; true", "dvc push", "no remote"),
        ("git add --force results/demo/table1.csv", "dvc repro --force study", "git rm"),
        ("sed -i 's/demo: workflow/dem: workflow/' dvc.yaml", "dip build demo", "dvc.yaml: no profile of Snakemake"),
        ("rm -r studies", "dvc repro", ""),
    ],
)
def test_refusals(recorded: Repository, prepare: str, command: str, message: str) -> None:
    """Wrong: nobody would know what to do."""
    recorded.run("bash", "-c", prepare)
    result = recorded.command("bash", "-c", command)
    assert message in result.stdout
    assert "Traceback" not in result.stdout
    assert (recorded.folder / TABLE1).exists()
