"""What DVC costs on top of Snakemake: the same study made by `snakemake` and by `dvc repro`, each in a fresh clone.

    python benchmarks/recording.py [--params tests/tiny.yaml] [--rounds 1]

The clones have what is committed, and the given params.yaml; its study must be `demo`. With params.yaml itself this
takes half an hour on two cores. Prints a table and writes build/benchmarks/recording.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from dip.files import write_json

REPOSITORY = Path(__file__).parent.parent
COMMANDS = {"snakemake": ["snakemake", "--profile", "workflow/profiles/demo"], "dvc repro": ["dvc", "repro"]}


def clone(folder: Path, params: Path) -> None:
    """A fresh clone with other parameters, without stages of the repository's own."""
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(folder)], check=True)
    shutil.copyfile(params, folder / "params.yaml")
    shutil.rmtree(folder / "studies", ignore_errors=True)
    subprocess.run(["git", "-C", str(folder), "rm", "-r", "--quiet", "--cached", "studies"], check=False)


def seconds(command: list[str], folder: Path) -> dict[str, float]:
    """Wall-clock seconds of a command, and those of the processor with all its children."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
    }
    environment.setdefault("OMP_NUM_THREADS", "1")
    wall, processor = time.perf_counter(), sum(os.times()[2:4])
    subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
    )
    return {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": sum(os.times()[2:4]) - processor}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=REPOSITORY / "tests/tiny.yaml")
    parser.add_argument("--rounds", type=int, default=1, help="of both commands, one after the other")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "build/benchmarks/recording.json")
    options = parser.parse_args()
    rows = []
    for number in range(options.rounds):
        for name, command in COMMANDS.items():
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary) / "clone"
                clone(folder, options.params)
                rows.append({"round": number + 1, "command": name, **seconds(command, folder)})
    best = {name: min(row["wall_seconds"] for row in rows if row["command"] == name) for name in COMMANDS}
    ratio = best["dvc repro"] / best["snakemake"]
    print(tabulate(rows, headers="keys", floatfmt=".1f"))
    print(f"dvc repro / snakemake: {ratio:.2f}")
    write_json(options.output, {"params": str(options.params), "rows": rows, "ratio": ratio})


if __name__ == "__main__":
    main()
