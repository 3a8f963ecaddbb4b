"""Writing shards with several processes: bounded memory, progress by the image, a clean end whatever happens."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from dip.data.shards import Record, Task, write_shard
from dip.progress import Progress

_POLL_SECONDS = 0.5


class _Stopped(Exception):
    """The parent has given up; raised inside workers only."""


def write_shards(tasks: Iterator[Task], num_workers: int, progress: Progress) -> Generator[tuple[int, Record]]:
    """Write shards, as many at a time as there are workers.

    Args:
        tasks: The shards; they are taken one by one, as workers become free.
        num_workers: Processes; with 1 this process does the work.
        progress: Advanced by every image.

    Yields:
        Number and record of every shard, as they are finished.

    Raises:
        OSError: A shard cannot be written, a source file cannot be read, or a worker was killed.
        ValueError: The source has changed since it was listed.
    """
    if num_workers == 1:
        for task in tasks:
            yield task.number, write_shard(task, progress.advance)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    done, stop = context.Value("q", 0), context.Value("b", 0)
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (done, stop))
    running: dict[Future[Record], int] = {}
    shown = 0
    try:
        while True:
            for task in itertools.islice(tasks, num_workers + 1 - len(running)):  # one more: no worker waits
                with _interrupts_held_back():  # the first submit starts the workers
                    running[pool.submit(_work, task)] = task.number
            if not running:
                break
            finished, _ = wait(running, _POLL_SECONDS, FIRST_COMPLETED)
            now = done.value
            progress.advance(now - shown)
            shown = now
            for future in finished:
                yield running.pop(future), future.result()
    except BrokenProcessPool as error:
        raise OSError(
            "a worker was killed, perhaps for lack of memory; run again with fewer --workers (finished shards stay)"
        ) from error
    finally:
        stop.value = 1
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C reaches every process: those that start in here never notice it, and this one does afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Synchronized[int]] = {}  # of this worker process


def _start_worker(done: Synchronized[int], stop: Synchronized[int]) -> None:
    _worker.update(done=done, stop=stop)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent: Any = multiprocessing.parent_process()
    parent.join()
    os._exit(1)


def _work(task: Task) -> Record:
    return write_shard(task, _advance)


def _advance(count: int) -> None:
    if _worker["stop"].value:
        raise _Stopped
    with _worker["done"].get_lock():
        _worker["done"].value += count
