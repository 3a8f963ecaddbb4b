"""Several processes of one training on this machine, as torchrun would start them, without its seconds of imports."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TIMEOUT = 60
_CONTEXT = multiprocessing.get_context("forkserver")  # its server has imported torch and has started no threads
_CONTEXT.set_forkserver_preload(["dip.training.loop", "torch._dynamo"])  # DistributedDataParallel imports the second


def run_processes(size: int, function: Callable[..., None], *arguments: Any) -> list[tuple[int, str]]:
    """Call a function in several processes.

    Args:
        size: How many.
        function: A function of a module, called as `function(rank, *arguments)` in the current folder.
        arguments: Handed over pickled.

    Returns:
        Exit code and stderr of each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = []
    for rank in range(size):
        own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = _CONTEXT.Process(target=_run, args=(own, str(Path.cwd()), function, rank, *arguments))
        process.start()
        processes.append(process)
    for process in processes:
        process.join(_TIMEOUT)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
        process.join()
    assert not hanging, f"{len(hanging)} of {size} processes did not end"
    return [
        (process.exitcode or 0, Path(f"stderr-{rank}").read_text(errors="replace"))
        for rank, process in enumerate(processes)
    ]


def _run(environment: dict[str, str], folder: str, function: Callable[..., None], rank: int, *arguments: Any) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    os.chdir(folder)
    with Path(f"stderr-{rank}").open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        function(rank, *arguments)
