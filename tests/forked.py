"""`dip` in processes that have imported torch already: to be killed many times, each without its seconds of imports."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from project import Project

_CONTEXT = multiprocessing.get_context("forkserver")  # its server has imported torch and has started no threads
_CONTEXT.set_forkserver_preload(
    ["dip.cli", "dip.launch.jobs", "dip.training.loop", "dip.sampling.generate", "torch._dynamo"]
)


def start_dip(project: Project, log: Path, *arguments: str) -> multiprocessing.process.BaseProcess:
    """Start `dip` in a project; what it says goes to the end of a file."""
    process = _CONTEXT.Process(target=_run, args=(project.folder, project.environment, log, arguments))
    process.start()
    return process


def _run(folder: Path, environment: dict[str, str], log: Path, arguments: Sequence[str]) -> None:
    from tqdm import tqdm

    from dip import cli

    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which outlives a kill
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ.update(environment)
    os.chdir(folder)
    cli.main(arguments)
