"""The next batch is made while the present one is used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")


class Prefetch(Generic[Item]):
    """Runs an iterator one item ahead, in a thread; its errors come out where the item is asked for."""

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="data")
        self._coming = self._thread.submit(next, items, None)
        self._waited = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)  # after the item at hand

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        start = time.monotonic()
        item = self._coming.result()
        self._waited += time.monotonic() - start
        if item is None:
            raise StopIteration
        self._coming = self._thread.submit(next, self._items, None)
        return item

    def take_waited(self) -> float:
        """Seconds that `next` has waited for the thread since this was last asked."""
        waited, self._waited = self._waited, 0.0
        return waited
