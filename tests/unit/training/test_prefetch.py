"""Data are read while the model computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dip.training.prefetch import Prefetch


def test_items_come_in_order_and_one_is_made_ahead() -> None:
    """Wrong: batches would be mixed up, or the device would wait for every one."""
    made: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    with Prefetch(items()) as batches:
        assert next(batches) == 0
        assert second.wait(timeout=5)
        assert made == [0, 1]
        assert list(batches) == [1, 2]


def test_waiting_is_measured() -> None:
    """Wrong: a training that waits for its disk would look like one that computes."""

    def items() -> Iterator[int]:
        for number in range(2):
            time.sleep(0.1)
            yield number

    with Prefetch(items()) as batches:
        next(batches)
        time.sleep(0.15)
        next(batches)
        assert 0.05 < batches.take_waited() < 0.15
        assert batches.take_waited() == 0


def test_error_comes_out_where_the_item_is_asked_for() -> None:
    """Wrong: a data set that cannot be read would leave the training waiting."""

    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with Prefetch(items()) as batches:
        assert next(batches) == 1
        with pytest.raises(OSError, match="the disk is gone"):
            next(batches)
