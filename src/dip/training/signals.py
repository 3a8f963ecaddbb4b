"""SIGUSR2 and SIGTERM during a training: noted when they come, obeyed between two steps."""

from __future__ import annotations

import enum
import logging
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

_log = logging.getLogger(__name__)
_END_SECONDS = 60
_SAME_SECONDS = 2


class Request(enum.IntEnum):
    """What a training is asked to do after the step at hand; the larger one wins."""

    NOTHING = 0
    SAVE = 1
    SAVE_AND_HAND_OVER = 2
    SAVE_AND_STOP = 3


class Signals:
    """Notes signals in the place of the handlers that were there, and puts those back at the end.

    SIGUSR2 asks for a checkpoint. Under submitit it announces a preemption or the end of the time; submitit's own
    handler, which requeues the job and ends the process, is called when the checkpoint is written. SIGTERM asks for
    a checkpoint and the end; a second one, more than two seconds later, ends the process at once. (Sooner it is the
    first one on another way: torchrun passes on what its children may have got already.)
    """

    def __init__(self) -> None:
        self.request = Request.NOTHING
        self._before: dict[int, Any] = {}
        self._terminated: float | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python has signal handlers nowhere else
            for number in (signal.SIGUSR2, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def obey(self, request: Request, step: int, *, is_main: bool) -> None:
        """Do what was asked for, beyond the checkpoint, which has been written.

        Args:
            request: What the processes agreed on.
            step: Steps that the checkpoint holds.
            is_main: Whether this is the main process, the one from which submitit requeues a job.

        Raises:
            SystemExit: The training ends here; 143 is the exit status of a process that SIGTERM ended.
        """
        if request is Request.SAVE_AND_STOP:
            _log.warning("stopped by SIGTERM after step %d; run the same command again to go on", step)
            raise SystemExit(128 + signal.SIGTERM)
        if request is Request.SAVE_AND_HAND_OVER:
            self.request = Request.NOTHING
            handler = self._before.get(signal.SIGUSR2)
            if callable(handler):
                _log.warning("SIGUSR2: saved step %d, the job is handed back to the scheduler", step)
                handler(signal.SIGUSR2, None)
                if not is_main:
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    time.sleep(_END_SECONDS)  # the main process has the job requeued, which ends this one
                    raise SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number != signal.SIGTERM:
            self.request = max(self.request, Request.SAVE_AND_HAND_OVER)
        elif self._terminated is None:
            self.request, self._terminated = Request.SAVE_AND_STOP, time.monotonic()
        elif time.monotonic() - self._terminated > _SAME_SECONDS:
            raise SystemExit(128 + signal.SIGTERM)
