"""`dip unlock`: the lock of a Snakemake that lives stays."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dip.unlock import arguments_of, unlock


@pytest.mark.parametrize(
    "words",
    [
        ("snakemake",),
        ("/venv/bin/python3.11", "/venv/bin/snakemake"),
        ("python", "-m", "snakemake"),
        ("python", "-X", "utf8", "-Werror", "-um", "snakemake"),
    ],
)
def test_ways_to_call_a_program(words: tuple[str, ...]) -> None:
    """Wrong: a Snakemake at work would be taken for something else, and its lock would go."""
    assert arguments_of("snakemake", [*words, "--cores", "2"]) == ["--cores", "2"]


@pytest.mark.parametrize(
    "words",
    [(), ("python",), ("vim", "snakemake"), ("python", "-m", "pip", "install", "snakemake"), ("python", "-X")],
)
def test_other_programs(words: tuple[str, ...]) -> None:
    """Wrong: an editor or an installation would keep the folder locked."""
    assert arguments_of("snakemake", words) is None


def test_a_living_snakemake_keeps_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: a second Snakemake would write the files that a first one, started as a module, is writing."""
    monkeypatch.chdir(tmp_path)
    lock = Path(".snakemake/locks/0.output.lock")
    lock.parent.mkdir(parents=True)
    lock.touch()
    Path("snakemake.py").write_text("import time; open('ready', 'w').close(); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-u", "-m", "snakemake"]) as stand_in:
        try:
            while not Path("ready").exists():
                time.sleep(0.01)
            with pytest.raises(ValueError, match=rf"Snakemake is at work in this folder \(process {stand_in.pid}\)"):
                unlock()
        finally:
            stand_in.kill()
    assert lock.exists()
    unlock()
    assert not lock.exists()
