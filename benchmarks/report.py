"""How the benchmarks begin, and how they give their rows.

A table on the screen and in Markdown; in JSON also where it was measured.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from dip.environment import describe_environment, device_name, pick_device
from dip.files import atomic_write, write_json
from dip.memory import keep_freed_memory


def begin(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line with the options that timings share, and set memory and threads as a job does."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder of the results")
    options = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    return options


def report(rows: Sequence[dict[str, Any]], folder: Path, name: str, *, floatfmt: str = ".4g", **more: Any) -> None:
    """Print rows and write `<name>.json` and `<name>.md`.

    Args:
        rows: A dictionary a row, by column.
        folder: Of the files; made if it is not there.
        name: Of the files, without ending.
        floatfmt: Format of the numbers in the table; JSON has all digits.
        more: What else JSON should say, settings for example.
    """
    table = tabulate(rows, headers="keys", floatfmt=floatfmt, tablefmt="github")
    print(table)
    machine = {
        "load_average": os.getloadavg()[0],
        "device": device_name(pick_device()),
        "versions": describe_environment(),
    }
    write_json(folder / f"{name}.json", {"rows": rows, **more, **machine})
    with atomic_write(folder / f"{name}.md") as file:
        file.write(f"{table}\n")


def settings(options: Any) -> dict[str, Any]:
    """Options of the command line without where the results go."""
    values = {key: value for key, value in vars(options).items() if key != "output"}
    return {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
