"""Where files live: the contract that Snakemake's rules and people rely on."""

from __future__ import annotations

from pathlib import Path

import pytest

from dip import paths, provenance
from dip.paths import RunFolder, Store, StudyFolder, given_path, work_folder


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
    files = (store.manifest, store.shard(3, "0123456789abcdef"), store.labels("f" * 64), store.index("f" * 64))
    names = ("manifest.json", "images-00003-0123456789ab.npy", "labels-ffffffffffff.npy", "index-ffffffffffff.csv")
    assert [str(path) for path in files] == [f"data/photos32/{name}" for name in names]


def test_a_study_has_files_of_its_own() -> None:
    """Wrong: what is noted of a study of that name would replace the checksums of all files, and they it."""
    study = StudyFolder("checksums")
    assert len({study.first, study.changed, study.last_build, provenance._CHECKSUMS}) == 4


def test_state_of_a_training_depends_on_parameters_and_data() -> None:
    """Wrong: a training would go on from the state of another model or of other data."""
    first = work_folder("dip", "{}", b"data")
    assert first == work_folder("dip", "{}", b"data")
    assert first.parent == Path("work") and first.name.startswith("dip-")
    others = {work_folder("dip", "{1}", b"data"), work_folder("dip", "{}", b"d"), work_folder("dit", "{}", b"data")}
    assert first not in others and len(others) == 3
    assert work_folder("dip", "ab", b"c") != work_folder("dip", "a", b"bc")


def test_state_of_a_training_depends_on_the_weights_it_reads() -> None:
    """Wrong: after the file of `init_from` was changed, a training from the old one would go on or be published."""
    a, b = "a" * 64, "b" * 64
    folders = {work_folder("dip", "{}", b"data", *checksums) for checksums in ((), (a,), (b,), (a, b), (b, a))}
    assert len(folders) == 5


def test_given_path_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wrong: a path that works in a shell would not work in params.yaml, or the variable to set stays unknown."""
    monkeypatch.setenv("DIP_TEST_FOLDER", "/weights")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DIP_TEST_UNSET", raising=False)
    assert given_path("${DIP_TEST_FOLDER}/dit.pt", "key", "a file") == Path("/weights/dit.pt")
    assert given_path("~/dit.pt", "key", "a file") == tmp_path / "dit.pt"
    with pytest.raises(ValueError, match=r"params\.yaml: key is .* the environment variable DIP_TEST_UNSET is not set"):
        given_path("$DIP_TEST_FOLDER/$DIP_TEST_UNSET", "key", "a file")
    monkeypatch.setenv("DIP_TEST_EMPTY", "")
    with pytest.raises(ValueError, match=r"variables DIP_TEST_EMPTY and DIP_TEST_UNSET are not set; point them at"):
        given_path("$DIP_TEST_EMPTY/${DIP_TEST_UNSET}", "key", "a file")


def test_given_path_may_hold_a_dollar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a path with a $ in it could not be given, by name or by a variable; nor one of a user who is not there."""
    monkeypatch.setenv("DIP_TEST_FOLDER", "/for $sale")
    for given, path in (
        ("$DIP_TEST_FOLDER/a", "/for $sale/a"),
        ("/cost $/a", "/cost $/a"),
        ("~nobody!/a", "~nobody!/a"),
    ):
        assert given_path(given, "key", "a file") == Path(path)
