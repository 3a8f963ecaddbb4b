"""Failures, kills and a second call: nothing half-written, earlier results intact, and it goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from project import REPOSITORY, Project

SLOW = "training: {base: tiny, epochs: 200, log_every: 5}"  # long enough to be interrupted


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("broken", ["data/photos16/images-*.npy", "data/references/photos16.npz"])
def test_a_failed_rule_leaves_no_stale_table_called_up_to_date(finished: Project, broken: str) -> None:
    """After a failure the table is still of the old parameters; Snakemake must go on planning it."""
    finished.edit("label: DiP\n    model: {base: dip}", "label: DiP\n    model: {base: dip, head: {width: 8}}")
    (path,) = finished.folder.glob(broken)
    times = path.stat()
    good = path.read_bytes()
    path.write_bytes(b"not what it was")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    table = finished.content("results/demo/table2.csv")

    result = finished.snakemake("results/demo/table2.csv")
    assert result.returncode == 1
    assert str(Path(broken).parent) in result.stdout.split("Error in rule")[0]
    assert finished.content("results/demo/table2.csv") == table
    job = "train dip" if "images" in broken else "evaluate dip"
    _, _, end = result.stdout.rpartition("1 job has failed")
    assert f"  dip {job}, which makes results/demo/runs/dip/" in end
    assert f"\ndip {job}: " in result.stdout, "the reason, and whose it is"

    path.write_bytes(good)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    planned = finished.plan("results/demo/table2.csv")
    assert {"evaluate dip", "table table2"} <= planned
    assert ("train dip" in planned) == ("images" in broken)


def start(project: Project, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Start Snakemake in a process group of its own."""
    with log.open("wb") as file:
        return subprocess.Popen(
            ["snakemake", "--profile", "workflow/profiles/demo", *arguments],
            cwd=project.folder,
            env=project.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def test_killed_in_the_middle_of_a_training(finished: Project, tmp_path: Path) -> None:
    """After kill -9 of everything: a second call waits its turn, results stay, `dip unlock` and the same call go on."""
    finished.edit("model: {base: dit}\n    training: {base: tiny}", f"model: {{base: dit}}\n    {SLOW}")
    target, model = "results/demo/runs/dit/samples.npz", "results/demo/runs/dit/model.safetensors"
    table = finished.content("results/demo/table2.csv")
    process = start(finished, tmp_path / "log", target, "--set-resources", "train:save_seconds=0")
    try:
        wait_for(lambda: list(finished.folder.glob("work/dit-*/state-*.json")))
        os.killpg(process.pid, signal.SIGSTOP)  # or it might end before it is killed
        second = finished.snakemake(target)
        assert second.returncode == 1
        assert "cannot be locked" in second.stdout
        assert "at work" in finished.command("dip", "unlock").stdout
        assert "at work" in finished.snakemake("--unlock").stdout
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert finished.content("results/demo/table2.csv") == table
    assert not (finished.folder / model).exists()

    locked = finished.snakemake(target)
    assert locked.returncode == 1
    assert "--unlock" in locked.stdout
    assert finished.command("dip", "unlock").returncode == 0
    assert {"train dit", "sample dit", "evaluate dit"} <= finished.plan("results/demo/table2.csv")
    again = finished.snakemake(target)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "resuming at step" in again.stdout
    assert finished.plan(target) == set()


def test_only_snakemake_is_killed_and_its_job_lives_on(finished: Project, tmp_path: Path) -> None:
    """The job ends its work alone; what Snakemake had marked as incomplete must not hold up what comes after."""
    finished.edit("model: {base: dit}\n    training: {base: tiny}", f"model: {{base: dit}}\n    {SLOW}")
    target, provenance = (
        "results/demo/runs/dit/samples.npz",
        finished.folder / "results/demo/runs/dit/model.provenance.json",
    )
    before = set(finished.folder.glob("work/dit-*"))
    process = start(finished, tmp_path / "log", target)
    try:
        wait_for(lambda: set(finished.folder.glob("work/dit-*")) - before)  # the job has begun
        process.kill()
        assert not provenance.exists()
        wait_for(provenance.exists, 240)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    weights = finished.content("results/demo/runs/dit/model.safetensors")
    assert finished.command("dip", "unlock").returncode == 0
    again = finished.snakemake(target)
    assert again.returncode == 0, again.stdout[-3000:]
    assert "dip train" not in again.stdout and finished.content("results/demo/runs/dit/model.safetensors") == weights
    assert finished.plan(target) == set()


def test_a_stage_called_by_hand_with_other_parameters_is_made_again(finished: Project) -> None:
    """Weights of a learning rate that was tried would stand in the table as those of params.yaml."""
    tried = ("learning_rate: 1.0e-3", "learning_rate: 5.0e-2")
    model = finished.content("results/demo/runs/dit/model.safetensors")
    finished.edit(*tried)
    assert finished.command("dip", "train", "dit").returncode == 0
    assert finished.content("results/demo/runs/dit/model.safetensors") != model
    finished.edit(*reversed(tried))
    assert {"train dit", "sample dit", "evaluate dit", "table table2"} <= finished.plan() & finished.plan()
    finished.make()
    assert finished.content("results/demo/runs/dit/model.safetensors") == model
    assert finished.plan() == set()


def test_code_of_a_rule_is_no_parameter(finished: Project) -> None:
    """An update of a rule would train everything again; `code_version` is for what changes results."""
    (finished.folder / "workflow").unlink()
    shutil.copytree(REPOSITORY / "workflow", finished.folder / "workflow")
    rules = finished.folder / "workflow/rules/train.smk"
    rules.write_text(rules.read_text().replace(" --speed {resources.speed}", "  --speed {resources.speed}"))
    assert finished.plan() == set()
