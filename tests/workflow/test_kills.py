"""A training that is killed twenty times, at random moments."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from project import Project

KILLS = 20
STEPS = 200
COMMAND = ("dip", "train", "dit", "--save-steps", "3")


def steps_saved(project: Project) -> int:
    """Steps in the newest checkpoint."""
    names = [path.stem.removeprefix("state-") for path in project.folder.glob("work/dit-*/state-*.json")]
    return max(map(int, names), default=0)


def kill_at(project: Project, condition: Callable[[float], object], log: Path) -> int:
    """Start the training and kill it when a condition of the seconds since the start holds; its exit code."""
    with log.open("ab") as file:
        start = time.monotonic()
        process = subprocess.Popen(
            COMMAND, cwd=project.folder, env=project.environment, stdout=file, stderr=subprocess.STDOUT
        )
        while process.poll() is None and not condition(time.monotonic() - start):
            time.sleep(0.002)
        process.kill()
        return process.wait()


def moment(project: Project, chance: random.Random, startup: float) -> Callable[[float], Any]:
    """When to kill: while it starts and loads; or some steps on, in a step or in a save."""
    saved = steps_saved(project)
    if chance.random() < 0.3:
        end = chance.uniform(0.2, startup)
        return lambda seconds: seconds > end or steps_saved(project) > saved
    target = saved + chance.choice((3, 6, 9))  # few enough that the last kill comes before the end
    delay, since = chance.uniform(0, 0.05), None

    def reached(seconds: float) -> bool:
        nonlocal since
        if since is None and steps_saved(project) >= target:
            since = seconds
        return since is not None and seconds > since + delay

    return reached


@pytest.mark.slow
def test_weights_after_twenty_kills_are_those_without_any(project: Project, tmp_path: Path) -> None:
    """`kill -9` may cost the steps since the last checkpoint, and nothing else; the same command goes on."""
    training = f"training: {{base: tiny, epochs: {STEPS // 2}, log_every: 7}}"
    larger = f"model: {{base: dit, hidden_size: 128, depth: 4}}\n    {training}"
    project.edit("model: {base: dit}\n    training: {base: tiny}", larger)
    assert project.command("dip", "prepare", "photos16").returncode == 0
    whole = project.copy(tmp_path / "whole")
    start = time.monotonic()
    result = whole.command(*COMMAND)
    assert result.returncode == 0, result.stdout
    startup = min(5.0, time.monotonic() - start)

    chance, log = random.Random(0), tmp_path / "log"
    for number in range(KILLS):
        code = kill_at(project, moment(project, chance, startup), log)
        assert code == -signal.SIGKILL, f"it was over before kill {number + 1}: {log.read_text()[-2000:]}"
    before = steps_saved(project)
    result = project.command(*COMMAND)
    assert result.returncode == 0, result.stdout
    assert f"resuming at step {before} of {STEPS}" in result.stdout
    for path in ("model.safetensors", "params.json"):
        assert project.content(f"results/demo/runs/dit/{path}") == whole.content(f"results/demo/runs/dit/{path}")
    assert untimed(project) == untimed(whole)
    assert not list(project.folder.glob("work/dit-*/*state-*"))
    resumed = re.findall(r"resuming at step (\d+)", log.read_text())
    print(f"{KILLS} kills; the calls that came so far resumed at step {', '.join(resumed)}; the last one at {before}")


def untimed(project: Project) -> str:
    """The training log without what depends on the clock."""
    log = project.content("results/demo/runs/dit/training.jsonl").decode()
    return re.sub(r'"(images_per_second|data_wait|memory_gib|gpu_hours)": [^,]*', "", log)
