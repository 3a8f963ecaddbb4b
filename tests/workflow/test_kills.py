"""A training that is killed twenty times, at random moments."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forked import start_dip
from project import Project

KILLS = 20
STEPS = 200
IMPORTING = 0.5  # seconds, of several
STARTING = 0.5  # seconds, within which the model is built and the data and the state are loaded
ARGUMENTS = ("train", "dit", "--save-steps", "3")
COMMAND = ("dip", *ARGUMENTS)


def steps_saved(project: Project) -> int:
    """Steps in the newest checkpoint."""
    names = [path.stem.removeprefix("state-") for path in project.folder.glob("work/dit-*/state-*.json")]
    return max(map(int, names), default=0)


def kill_at(project: Project, condition: Callable[[float], object], log: Path) -> int | None:
    """Start the training and kill it when a condition of the seconds since the start holds; its exit code."""
    start, process = time.monotonic(), start_dip(project, log, *ARGUMENTS)
    while process.is_alive() and not condition(time.monotonic() - start):
        time.sleep(0.005)
    process.kill()
    process.join()
    return process.exitcode


def kill_while_it_imports(project: Project, seconds: float) -> int:
    """The same with the command itself, which takes seconds to import torch."""
    with subprocess.Popen(
        COMMAND, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
    return process.returncode


def moment(project: Project, chance: random.Random) -> Callable[[float], Any]:
    """When to kill: while it loads; or some steps on, in a step or in a save."""
    saved = steps_saved(project)
    if chance.random() < 0.3:
        end = chance.uniform(0, STARTING)
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
    result = whole.command(*COMMAND)
    assert result.returncode == 0, result.stdout

    chance, log = random.Random(0), tmp_path / "log"
    for number in range(KILLS):
        if number == KILLS // 2:
            code: int | None = kill_while_it_imports(project, IMPORTING)
        else:
            code = kill_at(project, moment(project, chance), log)
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
