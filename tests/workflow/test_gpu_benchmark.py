"""If these fail, the figures of a GPU cannot be made on a machine that has PyTorch and little else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a machine with PyTorch, timm, einops and pandas need not have.
MISSING = ("pydantic", "ruamel", "snakemake", "dvc", "submitit", "torch_fidelity", "psutil")
BARE = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named '{{name}}'")
sys.meta_path.insert(0, Missing())
import runpy
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
for command in {{commands}}:
    sys.argv = ["gpu.py", *command, "--runs", "runs.json", "--output", "figures.jsonl", "--speeds", "fast", "plain"]
    runpy.run_path({str(ROOT / "benchmarks" / "gpu.py")!r}, run_name="__main__")
"""


def call(folder: Path, *commands: list[str]) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1"}
    command = [sys.executable, "-c", BARE.replace("{commands}", repr(commands))]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    """Resolved runs as `export` writes them, made tiny."""
    export = [sys.executable, ROOT / "benchmarks" / "gpu.py", "export", "--runs", tmp_path / "runs.json"]
    subprocess.run(export, cwd=ROOT, check=True)
    runs = json.loads((tmp_path / "runs.json").read_text())
    run = runs["small_dip"]
    run["model"] |= {"hidden_size": 24, "depth": 1, "num_heads": 2}
    run["model"]["head"] |= {"width": 4}
    run["dataset"] |= {"photographs": ["coffee", "coins"], "num_classes": 2, "crops_per_class": 8, "num_images": 16}
    run["training"] |= {"batch_size": 8}
    run["sampling"] |= {"num_steps": 2}
    run["evaluation"]["extractor"] |= {"num_steps": 2}
    run["evaluation"]["reference"] |= {"num_images": 300}
    run |= {"num_steps": 3, "num_samples": 300}
    (tmp_path / "runs.json").write_text(json.dumps({"small_dip": run}))
    return tmp_path


def test_pieces(folder):
    """Every kind of piece is made, none twice, and one that was cut off again."""
    ways = ["ways", "small_dip", "--ways", "blocks", "all"]
    commands = [["latency", "small_dip"], ["training", "small_dip"], ways, ["table2", "small_dip", "--seeds", "0"]]
    call(folder, *commands)
    figures = folder / "figures.jsonl"
    lines = [json.loads(line) for line in figures.read_text().splitlines()]
    assert [(line["what"], line.get("speed", line.get("way", line.get("seed")))) for line in lines] == [
        ("latency", "fast"), ("latency", "plain"), ("training", "fast"), ("training", "plain"),
        ("ways", "blocks"), ("ways", "all"), ("table2", 0),
    ]  # fmt: skip
    latency, _, training, _, way, _, row = lines
    assert latency["num_function_evaluations"] == 3  # one of the two steps lies in the interval of guidance
    assert training["batch_size"] == 8
    assert training["tflops"] == pytest.approx(training["images_per_second"] * training["gflops_per_image"] / 1e3)
    assert way["step_ms"] > 0
    assert way["relative_error"] < 1e-5
    assert row["fid"] > 0
    assert (row["num_samples"], row["num_steps"]) == (300, 3)

    figures.write_text(figures.read_text()[:-10])
    text = call(folder, *commands, ["tables"])
    assert [json.loads(line)["what"] for line in text.splitlines() if line.startswith("{")] == ["table2"]
    again = json.loads(figures.read_text().splitlines()[-1])
    assert (again["fid"], again["loss"]) == (row["fid"], row["loss"])
    assert "### latency, CPU" in text
    assert "| small_dip |" in text
