"""A sampling that is killed ten times, at random moments."""

from __future__ import annotations

import random
import re
import signal
import time
from pathlib import Path

import pytest

from forked import start_dip
from project import Project

KILLS = 10
SAMPLES = 400
ARGUMENTS = ("sample", "dit", "--batch-size", "2", "--shard-size", "4")
COMMAND = ("dip", *ARGUMENTS)
OUTPUTS = ("samples.npz", "samples.png", "samples.json")


def shards(project: Project) -> int:
    """Shards that are made."""
    return len(list(project.folder.glob("work/dit-sample-*/shards-*/*.npz")))


def run_until(project: Project, target: int, seconds: float, log: Path) -> int | None:
    """Start the sampling; kill it when there are so many shards, or after some seconds; its exit code."""
    end, process = time.monotonic() + seconds, start_dip(project, log, *ARGUMENTS)
    while process.is_alive() and shards(project) < target and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.02))  # into the middle of a shard or of its writing
    process.kill()
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_samples_after_ten_kills_are_those_without_any(project: Project, tmp_path: Path) -> None:
    """`kill -9` may cost the shard under way and nothing else; two processes finish what one began."""
    project.edit("num_samples: 20", f"num_samples: {SAMPLES}")
    project.edit("tiny: {num_steps: 2", "tiny: {num_steps: 30")
    for arguments in (("prepare", "photos16"), ("train", "dit")):
        assert project.command("dip", *arguments).returncode == 0
    whole = project.copy(tmp_path / "whole")
    result = whole.command(*COMMAND)
    assert result.returncode == 0, result.stdout

    random.seed(0)
    log, made = tmp_path / "log", []
    for number in range(KILLS):
        starting = number in (0, 4)
        code = run_until(
            project,
            target=10**6 if starting else shards(project) + random.randint(1, SAMPLES // 4 // KILLS),
            seconds=random.uniform(0, 0.5) if starting else 120,
            log=log,
        )
        assert code == -signal.SIGKILL, f"it was over before kill {number + 1}: {log.read_text()[-2000:]}"
        made.append(shards(project))
    before = shards(project)
    assert 0 < before < SAMPLES // 4
    result = project.command(*COMMAND, "--processes", "2")
    assert result.returncode == 0, result.stdout
    found = re.search(rf"going on with (\d+) of {SAMPLES} samples", result.stdout)
    assert found is not None, result.stdout
    assert 4 * before <= int(found[1]) < SAMPLES, "all that was there; the other process may have made more by then"
    for name in OUTPUTS:
        assert project.content(f"results/demo/runs/dit/{name}") == whole.content(f"results/demo/runs/dit/{name}")
    assert not list(project.folder.glob("work/dit-sample-*/shards-*"))
    print(f"{KILLS} kills, after {', '.join(map(str, made))} of {SAMPLES // 4} shards; two processes made the rest")
