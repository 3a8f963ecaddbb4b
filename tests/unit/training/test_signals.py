"""SIGUSR2 and SIGTERM: a checkpoint between two steps, then what was asked for."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dip.schema import TrainingSpec
from dip.training import loop, signals
from dip.training.loop import train
from dip.training.signals import Request, Signals


@pytest.fixture
def send(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Have a signal come in the middle of a step."""

    def install(step: int, number: int) -> None:
        original, sent = loop.draw, []

        def draw(*arguments: Any, **settings: Any) -> Any:
            if settings["step"] == step - 1 and not sent:
                sent.append(number)
                os.kill(os.getpid(), number)
            return original(*arguments, **settings)

        monkeypatch.setattr(loop, "draw", draw)

    return install


def saved_step(work: Path) -> int:
    return max(json.loads(path.read_text())["step"] for path in work.glob("state-*.json"))


def lines(work: Path) -> list[tuple[int, float]]:
    content = (work / "training.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, content)]


def assert_goes_on(work: Path, spec: TrainingSpec) -> None:
    """The same call ends as a training without signals does."""
    train(spec, work)
    train(spec, Path("uninterrupted"))
    assert (work / "model.safetensors").read_bytes() == Path("uninterrupted/model.safetensors").read_bytes()
    assert lines(work) == lines(Path("uninterrupted"))


@pytest.mark.parametrize("number", signals.ENDS)
def test_signal_saves_the_step_and_ends(
    workplace: Path,
    spec: TrainingSpec,
    send: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """Wrong: `scancel`, Ctrl-C or a closed terminal would cost ten minutes, or look like a success."""
    before = signal.getsignal(number)
    send(5, number)
    with caplog.at_level(logging.INFO), pytest.raises(SystemExit) as stopped:
        train(spec, Path("work"))
    assert stopped.value.code == 128 + number
    assert f"{number.name}: saving after the step at hand; once more to end without" in capfd.readouterr().err
    end = "the last good checkpoint is of step 5 in work; run the same command again to go on"
    assert f"stopped by {number.name}; {end}" in caplog.text
    assert saved_step(Path("work")) == 5
    assert lines(Path("work"))[-1][0] == 4
    assert signal.getsignal(number) is before
    assert_goes_on(Path("work"), spec)


def test_sigusr2_saves_and_the_training_goes_on(workplace: Path, spec: TrainingSpec, send: Callable[..., None]) -> None:
    """Wrong: a person who asks for a checkpoint would end the training."""
    saved: list[int] = []
    original = loop.Saver.save
    send(7, signal.SIGUSR2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loop.Saver, "save", lambda self, step, state: (saved.append(step), original(self, step, state))[1]
        )
        train(spec, Path("work"))
    assert saved == [7]
    assert (Path("work") / "model.safetensors").exists()


def test_schedulers_handler_is_called_when_the_checkpoint_is_written(
    workplace: Path, spec: TrainingSpec, send: Callable[..., None]
) -> None:
    """Wrong: submitit would requeue the job in the middle of a step, without its latest state."""
    seen: list[int] = []

    def requeue(number: int, frame: object) -> None:
        seen.append(saved_step(Path("work")))
        raise SystemExit(-1)

    signal.signal(signal.SIGUSR2, requeue)
    send(7, signal.SIGUSR2)
    with pytest.raises(SystemExit) as stopped:
        train(spec, Path("work"))
    assert stopped.value.code == -1 and seen == [7]
    assert signal.getsignal(signal.SIGUSR2) is requeue
    assert_goes_on(Path("work"), spec)


def test_second_sigterm_ends_the_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a person could not end a training whose disk hangs; or a signal that comes twice would lose its state."""
    now = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    with Signals() as noted:
        noted.begun()
        os.kill(os.getpid(), signal.SIGTERM)
        assert noted.request is Request.SAVE_AND_STOP
        now += 1
        os.kill(os.getpid(), signal.SIGTERM)  # torchrun passing on what this process has had from the scheduler
        now += 2
        with pytest.raises(SystemExit) as stopped:
            os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.code == 143


def test_what_has_not_begun_ends_at_once(
    workplace: Path, spec: TrainingSpec, send: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: Ctrl-C would wait for minutes of compiling, or end with the errors of compilers that it has killed."""
    send(1, signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        train(spec, Path("work"))
    assert stopped.value.code == 130 and not list(Path("work").glob("state-*"))
    assert caplog.records[-1].getMessage() == "stopped by SIGINT before a step; run the same command again to go on"
    assert_goes_on(Path("work"), spec)


def test_ignored_signals_stay_ignored() -> None:
    """Wrong: `nohup dip train` would end with the terminal."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Signals() as noted:
        os.kill(os.getpid(), signal.SIGHUP)
        assert noted.request is Request.NOTHING


def test_other_processes_leave_requeueing_to_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a process that exits first would have the job killed before it is requeued."""
    order: list[str] = []
    monkeypatch.setattr(signals.time, "sleep", lambda seconds: order.append("waits"))
    signal.signal(signal.SIGUSR2, lambda number, frame: order.append("submitit"))
    with Signals() as noted, pytest.raises(SystemExit):
        noted.obey(Request.SAVE_AND_HAND_OVER, "saved", is_main=False)
    assert order == ["submitit", "waits"]


def test_trainings_in_a_thread_leave_signals_alone() -> None:
    """Wrong: Python refuses handlers outside the main thread, and the training would not start."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with Signals() as noted:
                assert noted.request is Request.NOTHING
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not errors
