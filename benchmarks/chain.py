"""Where the time of a chain goes that Snakemake has made, `make demo` for example: by rule, and beside the work proper.

    python benchmarks/chain.py [--folder .] [--cores 2]

Reads what Snakemake noted about its jobs in the folder, counts the seconds of each from its start to its end for every
core that it held, and takes off what starting `dip` costs, measured here. Training, sampling and evaluating (with its
feature networks and references, and latency) are the work proper; starting processes, tables, figures and idle cores
are the chain's overhead. A chain that was interrupted or had several calls is not one measurement. Prints a table and
writes build/benchmarks/chain.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from dip.environment import describe_environment, device_name, pick_device
from dip.files import write_json

# What a rule's process imports before it works; rules that are not named are overhead as a whole.
PROPER = {
    "train": "dip.training.loop",
    "sample": "dip.sampling.generate",
    "evaluate": "dip.evaluation.stage",
    "latency": "dip.sampling.latency",
    "feature_network": "dip.evaluation.photo_network, dip.data.dataset",
    "reference": "dip.evaluation.stage",
}
ALL_CORES = ("latency",)


def jobs(folder: Path) -> set[tuple[str, float, float]]:
    """Rule, start and end of every job; one job's outputs have them in common."""
    found = {}
    for file in (folder / ".snakemake" / "metadata").glob("*"):
        record = json.loads(file.read_text())
        found[record["shellcmd"]] = record["rule"], record["starttime"], record["endtime"]
    if not found:
        raise SystemExit(f"{folder}: Snakemake has noted no jobs here; run `make demo` first")
    return set(found.values())


def start_seconds(modules: str) -> float:
    """Seconds until a process of `dip` has read params.yaml and imported what it works with; the shorter of two."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        code = f"import dip.cli, dip.params; dip.cli.import_torch(); import {modules}; dip.params.load()"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        times.append(time.perf_counter() - start)
    return min(times)


def row(rule: str, walls: list[float], cores: int) -> dict[str, Any]:
    """What the jobs of a rule took: seconds for every core held, those of them for starting, and the rest."""
    held = cores if rule in ALL_CORES else 1
    total = held * sum(walls)
    starting = held * len(walls) * start_seconds(PROPER[rule]) if rule in PROPER else total
    return {"rule": rule, "jobs": len(walls), "core_seconds": total, "starting": starting, "proper": total - starting}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path())
    parser.add_argument("--cores", type=int, default=2, help="that Snakemake was given")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/chain.json"))
    options = parser.parse_args()
    found = jobs(options.folder)
    elapsed = max(end for _, _, end in found) - min(start for _, start, _ in found)
    walls: dict[str, list[float]] = defaultdict(list)
    for rule, start, end in found:
        walls[rule].append(end - start)
    rows = [row(rule, times, options.cores) for rule, times in walls.items()]
    rows.sort(key=lambda entry: -entry["core_seconds"])
    overhead = 1 - sum(entry["proper"] for entry in rows) / (elapsed * options.cores)
    print(tabulate(rows, headers="keys", floatfmt=".0f"))
    print(f"{elapsed:.0f} s in all; overhead of the chain: {overhead:.1%}")
    content = {"elapsed_seconds": elapsed, "cores": options.cores, "overhead": overhead, "rows": rows}
    write_json(options.output, {**content, "device": device_name(pick_device()), "versions": describe_environment()})


if __name__ == "__main__":
    main()
