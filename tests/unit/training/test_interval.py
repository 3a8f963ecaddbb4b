"""Lines of the training log: means, guards and warnings."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from dip.training import interval
from dip.training.distributed import Group, Place
from dip.training.interval import Interval

GROUP = Group(Place(), torch.device("cpu"))
WEIGHTS = {"velocity_loss": 1.0, "alignment_loss": 0.5}
VALUES = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)) + 0.5


def add(steps: Interval, values: torch.Tensor) -> None:
    for row in values:
        steps.add(row[:2], row[2])


def close(steps: Interval, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"batch_size": 8, "weights": WEIGHTS, "recent": [], "waited": 0.0}
    return steps.close(**(settings | changes))


def test_line_has_the_means_of_its_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the log would show the last step, or steps of the line before."""
    monkeypatch.setattr(interval, "peak_memory", lambda device: 3 * 2**29)
    steps = Interval(GROUP)
    add(steps, VALUES)
    line = close(steps)
    expected = VALUES.double().mean(dim=0).tolist()
    assert [line["velocity_loss"], line["alignment_loss"], line["gradient_norm"]] == expected
    assert line["loss"] == expected[0] + 0.5 * expected[1]
    assert line["images_per_second"] > 0 and line["memory_gib"] == 1.5 and 0 < line["device_hours"] < 1
    add(steps, VALUES[:1])
    assert close(steps, weights={"velocity_loss": 1.0})["loss"] == VALUES[0, 0].double()


@pytest.mark.parametrize("cut", [0, 1, 5, 6])
def test_line_does_not_depend_on_where_a_checkpoint_fell(cut: int) -> None:
    """Wrong: the log of an interrupted training would differ in its last digits, or lack steps."""
    whole, before, after = Interval(GROUP), Interval(GROUP), Interval(GROUP)
    add(whole, VALUES)
    add(before, VALUES[:cut])
    after.load_state_dict(before.state_dict())
    add(after, VALUES[cut:])
    timed = ("images_per_second", "device_hours", "data_wait", "memory_gib")
    one, other = ({key: value for key, value in close(steps).items() if key not in timed} for steps in (whole, after))
    assert one == other


def test_time_before_an_interruption_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the training cost would lack what was spent before the last interruption."""
    now = 0.0
    monkeypatch.setattr(interval.time, "monotonic", lambda: now)
    before, after = Interval(GROUP), Interval(GROUP)
    add(before, VALUES[:3])
    now = 3600.0
    after.load_state_dict(before.state_dict())
    add(after, VALUES[3:])
    now = 7200.0
    line = close(after)
    assert line["images_per_second"] == pytest.approx(6 * 8 / 7200)
    assert line["device_hours"] == pytest.approx(2 * GROUP.num_devices)


@pytest.mark.parametrize(
    ("row", "column", "message"), [(2, 0, "loss"), (2, 1, "loss"), (4, 2, "gradient"), (0, 2, "gradient")]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_first_step_that_is_not_finite_is_named(row: int, column: int, message: str, value: float) -> None:
    """Wrong: people would look for the cause at the wrong step."""
    values = VALUES.clone()
    values[row, column] = value
    values[row + 1, 0] = value  # what follows is not finite either
    steps = Interval(GROUP)
    add(steps, values[:3])
    steps.state_dict()
    add(steps, values[3:])
    assert steps.problem(106) == f"the {message} is not finite at step {101 + row}"


def test_sound_steps_are_no_problem() -> None:
    """Wrong: every training would stop."""
    steps = Interval(GROUP)
    assert steps.problem(0) is None
    add(steps, VALUES)
    assert steps.problem(6) is None


def test_spike_is_marked_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Wrong: a run that jumped at night would show it only to who draws the curve."""
    steps = Interval(GROUP)
    for level, recent, spike in ((1.0, [], False), (1.9, [1.0, 1.0], False), (2.1, [1.0, 1.0], True)):
        add(steps, torch.tensor([[level, 0.0, 1.0]]))
        assert close(steps, recent=recent)["loss_spike"] is spike
    assert caplog.text.count("loss spike: 2.1, and 1 in the 2 lines before") == 1


def test_waiting_for_data_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Wrong: an idle GPU would go unnoticed, or the log would be full of it."""
    now = 0.0
    monkeypatch.setattr(interval.time, "monotonic", lambda: now)
    steps = Interval(GROUP)
    with caplog.at_level(logging.WARNING):
        for waited in (9.0, 0.5, 3.0, 3.0):  # the first has the start of reading in it
            now += 10
            add(steps, VALUES)
            assert close(steps, waited=waited)["data_wait"] == pytest.approx(waited / 10)
    assert caplog.text.count("30 % of the time is spent waiting for data") == 1
