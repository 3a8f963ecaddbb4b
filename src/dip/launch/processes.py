"""Several processes of this machine: torchrun starts them, and ends all of them when one fails.

A signal that asks for the end goes from the launcher to the first of them, which tells the others; all save and end.
torchrun itself is deaf to it, since it gives its processes 30 seconds and then kills them, and a slow disk takes
longer. (A terminal's Ctrl-C and some schedulers signal every process of a group.) When torchrun dies, its processes do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time

from dip.files import atomic_write
from dip.launch.folder import WorkFolder
from dip.launch.jobs import Job, JobFailedError
from dip.training.signals import ENDS, SAME_SECONDS, listened_to

_log = logging.getLogger(__name__)
# With its number for the processes, which could else not tell whether it died before they knew it.
_DEAF = 'trap "" HUP INT TERM USR2; TORCHRUN_PID=$$ exec "$0" "$@"'


def work_in_processes(job: Job, folder: WorkFolder, processes: int) -> None:
    """Do a job in several processes of this machine.

    Raises:
        JobFailedError: They ended without a result.
        SystemExit: They were asked to end, and can go on later; its code is 128 and the signal's number.
    """
    handed_over = job.work / "job.pkl"
    with atomic_write(handed_over, "wb") as file:
        pickle.dump(job, file)
    folder.note("end", None)  # an earlier call's, which says nothing of processes that do not get as far as theirs
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    code, asked = _call([*torchrun, "--signals-to-handle=SIGQUIT", "-m", "dip.launch.worker", str(handed_over)], folder)
    if job.finished():
        return
    end = folder.read("end") or {}
    if asked is None and end.get("terminated"):  # by `dip cancel`, which signals the first one
        asked = signal.SIGTERM
    if asked is None:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        why = f"{end['error']}; see above" if end.get("error") else "see above"
        raise JobFailedError(f"the {processes} processes of {job.run} ended without a result ({how}); {why}")
    if code != 0:  # else they have said so themselves
        _log.warning("stopped by %s; %s; run the same command again to go on", asked.name, job.kept())
    raise SystemExit(128 + asked)


def _call(torchrun: list[str], folder: WorkFolder) -> tuple[int, signal.Signals | None]:
    """Exit code of torchrun, and the signal that asked this process for the end, if one did.

    A second signal, or one that comes before the processes listen, ends them at once.
    """
    process: subprocess.Popen[bytes] | None = None
    asked: list[tuple[signal.Signals, float]] = []

    def end(number: int, frame: object) -> None:
        asked.append((signal.Signals(number), time.monotonic()))
        if process is None:
            return
        again = asked[-1][1] - asked[0][1] > SAME_SECONDS
        if again or (len(asked) == 1 and not _signal_worker(folder, signal.SIGTERM)):
            process.kill()

    before = {number: signal.signal(number, end) for number in listened_to(ENDS)}
    before[signal.SIGUSR2] = signal.signal(
        signal.SIGUSR2, lambda number, frame: _signal_worker(folder, number) and None
    )
    try:
        with subprocess.Popen(["sh", "-c", _DEAF, *torchrun]) as process:
            if asked:
                process.kill()
            code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code, asked[0][0] if asked else None


def _signal_worker(folder: WorkFolder, number: int) -> bool:
    """Signal the first of the processes that work here, which tells the others; False if it has not begun."""
    worker = folder.worker() or {}
    if worker.get("host") != socket.gethostname():
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker["pid"], number)
    return True
