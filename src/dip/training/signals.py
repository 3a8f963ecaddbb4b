"""Signals during a training: noted when they come, obeyed between two steps."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable
from types import FrameType
from typing import Any, Self

_log = logging.getLogger(__name__)
_END_SECONDS = 60
ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""What asks for the end: a scheduler or `kill`, Ctrl-C, a terminal that is closed."""
SAME_SECONDS = 2
"""Signals that come sooner after the first are that one on another way, not a second one."""


class Request(enum.IntEnum):
    """What a training is asked to do after the step at hand; the larger one wins."""

    NOTHING = 0
    SAVE = 1
    SAVE_AND_HAND_OVER = 2
    SAVE_AND_STOP = 3


class Signals:
    """Notes signals in the place of the handlers that were there, and puts those back at the end.

    SIGUSR2 asks for a checkpoint. Under submitit it announces a preemption or the end of the time; submitit's own
    handler, which requeues the job and ends the process, is called when the checkpoint is written. SIGTERM, SIGINT
    and SIGHUP ask for a checkpoint and the end; a second one, more than two seconds later, ends the process at once.
    So does the first before there is a step to save: to compile may take minutes, and compilers get Ctrl-C as well.
    """

    def __init__(self) -> None:
        self.request = Request.NOTHING
        self._before: dict[int, Any] = {}
        self._asked: tuple[int, float] | None = None  # the first signal that asked for the end, and when
        self._last_words = ""
        self._begun = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python has signal handlers nowhere else
            for number in (signal.SIGUSR2, *listened_to(ENDS)):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._last_words:  # after the bar
            _log.warning(self._last_words)

    def begun(self) -> None:
        """A step is done, which a checkpoint would keep."""
        self._begun = True

    def obey(self, request: Request, saved: str, *, is_main: bool) -> None:
        """Do what was asked for, beyond the checkpoint, which has been written.

        Args:
            request: What the processes agreed on.
            saved: Where the training can go on from, for the message.
            is_main: Whether this is the main process, the one from which submitit requeues a job.

        Raises:
            SystemExit: The training ends here, with the exit status of a process that the signal ended (143 of
                SIGTERM, also where another process got the signal).
        """
        if request is Request.SAVE_AND_STOP:
            number = self._asked[0] if self._asked else signal.SIGTERM
            if is_main:
                self._last_words = f"stopped by {_name(number)}; {saved}; run the same command again to go on"
            raise SystemExit(128 + number)
        if request is Request.SAVE_AND_HAND_OVER:
            self.request = Request.NOTHING
            handler = self._before.get(signal.SIGUSR2)
            if callable(handler):
                _log.warning("SIGUSR2: %s; the job is handed back to the scheduler", saved)
                handler(signal.SIGUSR2, None)
                if not is_main:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    time.sleep(_END_SECONDS)  # the main process has the job requeued, which ends this one
                    raise SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR2:
            self.request = max(self.request, Request.SAVE_AND_HAND_OVER)
        elif self._asked is None:
            self._asked = number, time.monotonic()
            if not self._begun:
                self._last_words = f"stopped by {_name(number)} before a step; run the same command again to go on"
                raise SystemExit(128 + number)
            self.request = Request.SAVE_AND_STOP
            text = f"\n{_name(number)}: saving after the step at hand; once more to end without\n"
            with contextlib.suppress(OSError):  # not by print or logging, in the middle of which this may come
                os.write(2, text.encode())
        elif time.monotonic() - self._asked[1] > SAME_SECONDS:
            raise SystemExit(128 + number)


def listened_to(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Those of the signals that this process does not ignore, as SIGHUP after `nohup`."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def _name(number: int) -> str:
    return signal.Signals(number).name
