"""What a cluster does to jobs: preemption, time limits, kills, a scheduler that is away. Nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from cluster import ENDLESS, LONG, Cluster, lose_node, wait_for


def resumed_steps(log: str) -> list[int]:
    return [int(step) for step in re.findall(r"resuming at step (\d+)", log)]


def test_five_preemptions_change_no_bit(cluster: Cluster) -> None:
    """The result must not depend on what the cluster did meanwhile."""
    cluster.train_for(LONG)
    other = cluster.project.copy(cluster.project.folder.parent / "uninterrupted")
    uninterrupted = other.command("dip", "train", "dit")
    assert uninterrupted.returncode == 0, uninterrupted.stdout
    process = cluster.start()
    job, saved = cluster.job(), 0
    for _ in range(5):
        cluster.wait_for_checkpoint(after=saved)
        subprocess.run(["scancel", "--signal=USR2", job], check=True)
        cluster.wait_for_queue(job)
        saved = cluster.saved_step()
    assert process.wait(timeout=120) == 0, cluster.output
    steps = resumed_steps(cluster.log(job))
    assert len(steps) == 5, cluster.log(job)
    assert steps == sorted(set(steps))
    model = "results/demo/runs/dit/model.safetensors"
    assert cluster.project.content(model) == other.content(model)
    assert cluster.jobs() == [job]


def test_a_requeued_job_goes_on(cluster: Cluster) -> None:
    """`scontrol requeue`, or the loss of a node, warns nobody; what was saved before must do."""
    cluster.train_for(ENDLESS)
    cluster.start()
    job = cluster.job()
    saved = cluster.wait_for_checkpoint()
    assert cluster.status()["state"] == "running"
    subprocess.run(["scontrol", "requeue", job], check=True)
    wait_for(lambda: cluster.state(job) == "PENDING", "it is in the queue again")
    assert cluster.status()["state"] == "requeued"
    cluster.wait_for_queue(job)
    wait_for(lambda: resumed_steps(cluster.log(job)), "it resumes")
    assert resumed_steps(cluster.log(job))[0] >= saved
    assert cluster.jobs() == [job]


def test_a_lost_node_takes_the_others_with_it(cluster: Cluster) -> None:
    """The processes on the nodes that are left would wait for those of the lost one; all must start again."""
    cluster.settings(nodes=2, partition="two")
    cluster.train_for(ENDLESS)
    cluster.start()
    job = cluster.job()
    saved = cluster.wait_for_checkpoint()
    node = f"{socket.gethostname().partition('.')[0]}-2"
    lose_node(node)
    wait_for(lambda: cluster.state(job) == "PENDING", "it is in the queue again")
    # Unless it has come back by itself.
    subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
    cluster.wait_for_queue(job)
    wait_for(lambda: resumed_steps(cluster.log(job)), "it resumes")
    assert resumed_steps(cluster.log(job))[0] >= saved
    assert cluster.jobs() == [job]


def test_the_time_limit_puts_the_job_back(cluster: Cluster) -> None:
    """A training of days must pass through a queue of hours."""
    cluster.settings(signal_delay_s=30)
    cluster.train_for(ENDLESS)
    cluster.start()
    job = cluster.job()
    cluster.wait_for_checkpoint()
    subprocess.run(["scontrol", "update", f"jobid={job}", "TimeLimit=1"], check=True)
    wait_for(lambda: cluster.state(job) == "PENDING", "it is in the queue again", 120)
    saved = cluster.saved_step()
    subprocess.run(["scontrol", "update", f"jobid={job}", "TimeLimit=20"], check=True)
    cluster.wait_for_queue(job)
    wait_for(lambda: resumed_steps(cluster.log(job)), "it resumes")
    assert resumed_steps(cluster.log(job)) == [saved]
    assert cluster.jobs() == [job]


def test_a_higher_priority_partition_takes_the_node(cluster: Cluster) -> None:
    """A preempted training must come back when the node is free again, by itself."""
    cluster.settings(gpus_per_node=2)
    cluster.train_for(ENDLESS)
    process = cluster.start()
    job = cluster.job()
    cluster.wait_for_checkpoint()
    other = ["sbatch", "--parsable", "--partition=high", "--gpus-per-node=2", "--output=/dev/null", "--wrap=sleep 2"]
    answer = subprocess.run(other, capture_output=True, text=True, check=True, cwd=cluster.project.folder)
    wait_for(lambda: cluster.state(answer.stdout.strip()) in ("RUNNING", "COMPLETED"), "the other job runs")
    cluster.wait_for_queue(job)
    saved = cluster.saved_step()
    wait_for(lambda: resumed_steps(cluster.log(job)), "it resumes")
    assert resumed_steps(cluster.log(job)) == [saved]
    assert process.poll() is None
    assert cluster.jobs() == [job]


def test_a_process_killed_by_the_kernel(cluster: Cluster) -> None:
    """For want of memory, say. The launcher must notice, and the same command must go on from the checkpoint."""
    cluster.train_for(ENDLESS)
    process = cluster.start()
    first = cluster.job()
    saved = cluster.wait_for_checkpoint()
    os.kill(json.loads((cluster.work / "worker.lock").read_text())["pid"], signal.SIGKILL)
    assert process.wait(timeout=60) == 1
    assert f"SLURM job {first} of dit ended without a result" in cluster.output
    assert cluster.status()["state"] == "failed"
    cluster.start()
    wait_for(lambda: len(cluster.jobs()) == 2, "a new job is submitted")
    second = cluster.jobs()[-1]
    wait_for(lambda: list(Path(cluster.work).glob(f"slurm/{second}_0_log.err")), "it starts")
    wait_for(lambda: resumed_steps(cluster.log(second)), "it resumes")
    assert resumed_steps(cluster.log(second))[0] >= saved


def test_sigterm_without_a_cancellation(cluster: Cluster) -> None:
    """Some clusters announce a preemption so: the job saves and ends, and the launcher submits the next one."""
    cluster.train_for(ENDLESS)
    process = cluster.start()
    first = cluster.job()
    cluster.wait_for_checkpoint()
    subprocess.run(["scancel", "--signal=TERM", first], check=True)
    wait_for(lambda: len(cluster.jobs()) == 2, "a new job is submitted")
    saved = cluster.saved_step()
    second = cluster.jobs()[-1]
    wait_for(lambda: list(Path(cluster.work).glob(f"slurm/{second}_0_log.err")), "it starts")
    wait_for(lambda: resumed_steps(cluster.log(second)), "it resumes")
    assert resumed_steps(cluster.log(second)) == [saved]
    assert f"SLURM job {first} was lost" in cluster.output
    assert process.poll() is None


def test_cancelling(cluster: Cluster) -> None:
    """Without accounting submitit itself would wait for ever; and what was cancelled must be able to go on."""
    cluster.train_for(ENDLESS)
    process = cluster.start()
    first = cluster.job()
    saved = cluster.wait_for_checkpoint()
    result = cluster.project.command("dip", "cancel", "dit")
    assert result.returncode == 0
    assert f"train of dit: cancelled SLURM job {first}, which was running" in result.stdout
    assert process.wait(timeout=60) == 1
    assert f"SLURM job {first} of dit was cancelled" in cluster.output
    status = cluster.status()
    assert status["state"] == "stopped"
    assert status["step"] >= saved
    assert "nothing works on dit" in cluster.project.command("dip", "cancel", "dit").stdout
    cluster.start()
    wait_for(lambda: len(cluster.jobs()) == 2, "a new job is submitted")
    second = cluster.jobs()[-1]
    wait_for(lambda: list(Path(cluster.work).glob(f"slurm/{second}_0_log.err")), "it starts")
    wait_for(lambda: resumed_steps(cluster.log(second)), "it resumes")
    assert resumed_steps(cluster.log(second)) == [status["step"]]


def test_a_scheduler_that_is_away_is_not_a_job_that_is_gone(cluster: Cluster) -> None:
    """A launcher that took silence for an end would submit a second job beside the first."""
    cluster.train_for(LONG)
    process = cluster.start()
    job = cluster.job()
    cluster.wait_for_checkpoint()
    configuration = Path("/etc/slurm/slurm.conf").read_text()
    (pid_file,) = re.findall(r"^SlurmctldPidFile=(.*)$", configuration, re.MULTILINE)
    pid = int(Path(pid_file).read_text())
    os.kill(pid, signal.SIGTERM)
    try:
        wait_for(lambda: "asking again until SLURM answers" in cluster.output, "the launcher notices")
        time.sleep(3)
        assert process.poll() is None
    finally:
        wait_for(lambda: not Path(f"/proc/{pid}").exists(), "slurmctld ends")
        subprocess.run(["slurmctld"], check=True)
    assert process.wait(timeout=120) == 0, cluster.output
    assert "SLURM answers again" in cluster.output
    assert cluster.jobs() == [job]
