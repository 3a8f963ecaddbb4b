"""Launchers and jobs of a real SLURM: one job per work folder, whoever asks and whoever dies."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from cluster import ENDLESS, LONG, SHORT, Cluster, wait_for
from safetensors.torch import load_file


def test_a_training_of_two_processes_is_published(cluster: Cluster) -> None:
    """The weights come from the node through the work folder to the run's folder; a second call submits nothing."""
    cluster.settings(gpus_per_node=2, tasks_per_node=2)
    result = cluster.train()
    assert result.returncode == 0, result.stdout
    run = cluster.project.folder / "results/demo/runs/dit"
    written = {"model.safetensors", "model.provenance.json", "params.json", "training.csv", "training.jsonl"}
    assert {path.name for path in run.iterdir()} == written
    assert json.loads((run / "params.json").read_text())["finished_step"] == 4
    job = cluster.job()
    assert f"submitted SLURM job {job}" in result.stdout
    assert len(list((cluster.work / "slurm").glob(f"{job}_?_log.err"))) == 2
    again = cluster.train()
    assert again.returncode == 0
    assert "is there already" in again.stdout
    assert cluster.jobs() == [job]
    assert cluster.status()["state"] == "done"


def test_a_training_on_two_nodes(cluster: Cluster) -> None:
    """Its processes meet on the first node, by the name that SLURM has for it; the result is that of one node."""
    cluster.settings(gpus_per_node=2, tasks_per_node=2, nodes=2, partition="two")
    result = cluster.train()
    assert result.returncode == 0, result.stdout
    weights = cluster.project.folder / "results/demo/runs/dit/model.safetensors"
    several = load_file(weights)
    assert len(list((cluster.work / "slurm").glob(f"{cluster.job()}_?_log.err"))) == 4
    shutil.rmtree(cluster.work)
    shutil.rmtree(weights.parent)
    result = cluster.project.command("dip", "train", "dit", "--processes", "4")
    assert result.returncode == 0, result.stdout
    for name, values in load_file(weights).items():
        torch.testing.assert_close(values, several[name], rtol=0, atol=1e-6)


def test_a_sampling_on_two_nodes(cluster: Cluster) -> None:
    """Each process takes shards that none has; the samples are those of one process, bit by bit."""
    samples = cluster.project.folder / "results/demo/runs/dit/samples.npz"
    for command in (["dip", "train", "dit"], ["dip", "sample", "dit", "--shard-size", "4"]):
        result = cluster.project.command(*command)
        assert result.returncode == 0, result.stdout
    alone = samples.read_bytes()
    shutil.rmtree(cluster.project.folder / "work")
    samples.unlink()
    cluster.settings(gpus_per_node=2, tasks_per_node=2, nodes=2, partition="two")
    result = cluster.project.command(
        "dip", "sample", "dit", "--launcher", "slurm", "--slurm", "jobs.yaml", "--shard-size", "4"
    )
    assert result.returncode == 0, result.stdout
    assert len(list(cluster.project.folder.glob("work/*/slurm/*_?_log.err"))) == 4
    assert samples.read_bytes() == alone


@pytest.mark.parametrize("recorded", [True, False])
def test_a_killed_launcher_finds_its_job_again(cluster: Cluster, recorded: bool) -> None:
    """A second job would overwrite the first one's state, also if the launcher died before it recorded the first."""
    cluster.train_for(SHORT)
    process = cluster.start()
    job = cluster.job()
    cluster.kill(process)
    assert cluster.state(job) in ("PENDING", "RUNNING", "CONFIGURING")
    if not recorded:
        (cluster.work / "job.json").unlink()
    result = cluster.train()
    assert result.returncode == 0, result.stdout
    assert f"following SLURM job {job}" in result.stdout
    assert cluster.jobs() == [job]


def test_a_submission_that_arrived_although_sbatch_gave_up(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy scheduler answers too late; the job is in the queue, and must find there what it has to run."""
    late = tmp_path / "bin" / "sbatch"
    late.parent.mkdir()
    late.write_text(
        f'#!/bin/sh\n"{shutil.which("sbatch")}" "$@" >/dev/null\n'
        "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2\nexit 1\n"
    )
    late.chmod(0o755)
    monkeypatch.setenv("PATH", f"{late.parent}{os.pathsep}{os.environ['PATH']}")
    result = cluster.train()
    assert result.returncode == 0, result.stdout
    assert "Socket timed out on send/recv operation; trying again" in result.stdout
    assert len(cluster.jobs()) == 1


def test_two_launchers_of_one_run(cluster: Cluster) -> None:
    """The second must say what it waits for, submit nothing, and end well."""
    cluster.train_for(SHORT)
    process = cluster.start()
    job = cluster.job()
    result = cluster.train()
    assert result.returncode == 0, result.stdout
    assert "another process is at work in work/dit-" in result.stdout
    assert process.wait(timeout=60) == 0, cluster.output
    assert cluster.jobs() == [job]


def test_a_job_and_a_local_training_never_share_a_folder(cluster: Cluster) -> None:
    """`dip train` without the launcher, while the cluster trains, would write the same checkpoints."""
    cluster.train_for(ENDLESS)
    process = cluster.start()
    job = cluster.job()
    cluster.kill(process)
    result = cluster.project.command("dip", "train", "dit")
    assert result.returncode == 1
    assert f"SLURM job {job} is at work in work/dit-" in result.stdout


def test_snakemake_killed_in_the_middle(cluster: Cluster) -> None:
    """After kill -9 of Snakemake the same call follows the job that went on, then samples and evaluates by jobs."""
    cluster.train_for(LONG)
    cluster.settings(stages={"sample": {"tasks_per_node": 2, "gpus_per_node": 2}})
    stages = ("train", "sample", "evaluate")
    resources = [f"{stage}:{item}" for stage in stages for item in ("launcher=slurm", "slurm='jobs.yaml'")]
    target = "results/demo/runs/dit/metrics.json"
    snakemake = ["snakemake", "--profile", "workflow/profiles/demo", "--cores", "1", target]
    snakemake += ["--set-resources", *resources]
    process = cluster.start(*snakemake)
    wait_for(lambda: list(cluster.project.folder.glob("work/dit-*/job.json")), "a job is recorded", 120)
    job = cluster.job()
    cluster.kill(process)
    assert cluster.project.command("dip", "unlock").returncode == 0
    result = cluster.project.command(*snakemake)
    assert result.returncode == 0, result.stdout[-3000:]
    assert f"following SLURM job {job}" in result.stdout
    assert len(cluster.jobs()) == 3, "one for each stage"
    assert json.loads((cluster.project.folder / target).read_text())["num_samples"] == 20


def test_a_failing_job_shows_the_end_of_its_log(cluster: Cluster) -> None:
    """The cause stands in a file of the cluster; the person looks at this output. Mended, the same call goes on."""
    (labels,) = cluster.project.folder.glob("data/photos16/labels*")
    good = labels.read_bytes()
    labels.write_bytes(b"not what it was")
    result = cluster.train()
    assert result.returncode == 1
    assert "ended without a result (FAILED)" in result.stdout
    assert "data/photos16" in result.stdout.split("--- end of")[1]
    assert "Traceback" not in result.stdout.split("--- end of")[0]
    assert not (cluster.project.folder / "results").exists()
    assert cluster.status()["state"] == "failed"
    labels.write_bytes(good)
    assert cluster.train().returncode == 0
    assert len(cluster.jobs()) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partition": "nowhere"}, "invalid partition specified: nowhere"),
        ({"gpus_per_node": 3}, "Requested node configuration is not available"),
        ({"extra": {"nonsense": "yes"}}, "unrecognized option"),
    ],
)
def test_what_the_cluster_cannot_meet_is_named(cluster: Cluster, settings: dict[str, object], message: str) -> None:
    """Sbatch's refusal reaches the person in a line that names the key to change, not as a traceback."""
    cluster.settings(**settings)
    result = cluster.train()
    assert result.returncode == 1
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("dip train: "))
    assert message in line
    assert f"train.{next(iter(settings))}" in line
    assert "jobs.yaml" in line
    assert "Traceback" not in result.stdout
    assert cluster.jobs() == []
