"""Where files live: the contract that Snakemake's rules and people rely on."""

from __future__ import annotations

from pathlib import Path

from dip import paths
from dip.paths import RunFolder, Store, work_folder


def test_paper_s_results_stand_at_the_top() -> None:
    """Wrong: `snakemake results/table2.csv` and `results/demo/table2.csv` would not name their studies."""
    assert paths.study_folder("paper") == Path("results")
    assert paths.study_folder("demo") == Path("results/demo")
    assert RunFolder.of("paper", "dip").model == Path("results/runs/dip/model.safetensors")
    assert RunFolder.of("demo", "dip").samples == Path("results/demo/runs/dip/samples.npz")


def test_files_of_a_run_and_of_a_dataset() -> None:
    """Wrong: a rule would wait for a file that no stage writes."""
    folder = RunFolder.of("demo", "dip")
    files = ("model", "params", "training_log", "samples", "grid", "metrics", "latency")
    assert [getattr(folder, file).name for file in files] == [
        "model.safetensors",
        "params.json",
        "training.jsonl",
        "samples.npz",
        "samples.png",
        "metrics.json",
        "latency.json",
    ]
    store = Store.of("photos32")
    assert [str(path) for path in (store.images, store.labels, store.manifest)] == [
        f"data/photos32/{name}" for name in ("images.npy", "labels.npy", "manifest.json")
    ]


def test_state_of_a_training_depends_on_parameters_and_data() -> None:
    """Wrong: a training would go on from the state of another model or of other data."""
    first = work_folder("dip", "{}", b"data")
    assert first == work_folder("dip", "{}", b"data")
    assert first.parent == Path("work") and first.name.startswith("dip-")
    others = {work_folder("dip", "{1}", b"data"), work_folder("dip", "{}", b"d"), work_folder("dit", "{}", b"data")}
    assert first not in others and len(others) == 3
    assert work_folder("dip", "ab", b"c") != work_folder("dip", "a", b"bc")
