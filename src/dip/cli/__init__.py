"""`dip <stage>`: every rule of the workflow calls it, and a person can.

A stage takes its parameters from params.yaml by the name of the run. The workflow also passes what it planned
with (`--spec`): if params.yaml has been edited since, the planned parameters hold.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Sequence

from dip.cli import data, folder, reports, runs, versioning


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one stage; a mistake of the user ends in one line and exit code 1."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: `dip ... >&-`
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports on every glyph of a PDF
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # many fonts have but one weight
    logging.getLogger("huggingface_hub").propagate = False  # it writes its lines itself
    options = _parser().parse_args(arguments)
    # In the output of a workflow, where several jobs write, an error says whose it is.
    planned = getattr(options, "run", None) if options.spec is not None else None
    called = " ".join(["dip", options.command, *([planned] if planned else [])])
    if not getattr(options, "light", False):
        import_torch()
    try:
        options.stage(options)
        sys.stdout.flush()
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            sys.exit(1)
        if getattr(options, "launcher", None) == "debug":
            raise
        if found := _memory_asked_for(error):
            sys.exit(f"{called}: not enough memory ({found}); smaller settings or batches need less")
        if isinstance(error, RuntimeError) and type(error).__module__ == "builtins":
            raise  # ours to mend: show the traceback
        sys.exit(f"{called}: {error}")
    except KeyboardInterrupt:
        print(f"{called}: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def _memory_asked_for(error: Exception) -> str | None:
    """What there was no memory for, in the words of Python, NumPy or PyTorch; None for other errors."""
    text = str(error).partition("\n")[0]
    if isinstance(error, MemoryError):
        return text or "Python's own objects"
    found = re.search(r"(?:CUDA out of memory|DefaultCPUAllocator|Storage size calculation overflowed).*", text)
    return found and found[0]


def _stdout_is_closed() -> bool:
    """Whether whatever read the output, `head` for example, has ended; nothing more is written to it then.

    To write again does not tell: what could not be written may be lost, and then there is nothing to write.
    """
    poll = select.poll()
    poll.register(sys.stdout, 0)  # it tells errors of whatever it is asked for
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
    return True


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Tells the default of an option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return super()._get_help_string(action) if action.default else action.help


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dip", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, stage: object, help: str, *positional: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help, formatter_class=_Help, allow_abbrev=False)
        for argument in positional:
            command.add_argument(argument, help="its name in params.yaml")
        command.set_defaults(stage=stage)
        command.add_argument("--spec", help=argparse.SUPPRESS)
        return command

    for group in (data, runs, reports, folder, versioning):
        group.add_commands(add)
    return parser


def import_torch() -> None:
    """Import torch for the cores that the workflow gave to this job (OMP_NUM_THREADS), not all that there are.

    Where it gave none, whoever needs torch imports it.
    """
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]  # "2,1": two, and one in each when nested
    if threads.isdecimal() and int(threads) > 0:
        gc.disable()  # nothing of it is garbage, and to look through it takes a quarter of a process's start
        import torch

        gc.freeze()
        gc.enable()
        torch.set_num_threads(int(threads))
