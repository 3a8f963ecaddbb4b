"""jobs.yaml: what stands in the profile, and mistakes in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dip.launch.settings import load_settings
from dip.paths import JOBS

GOOD = """
all: {partition: gpu, timeout_min: 60, mem_gb: 8, setup: [module load cuda]}
train: {nodes: 2, tasks_per_node: 4, mem_gb: 16, extra: {mail-type: END}}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.yaml"


def test_a_stage_adds_to_all(path: Path) -> None:
    """Wrong: a key of one stage would ask for it in all jobs, or lose what all share."""
    path.write_text(GOOD)
    train, sample = load_settings(path, "train"), load_settings(path, "sample")
    assert (train.partition, train.mem_gb, train.num_tasks) == ("gpu", 16, 8)
    assert (sample.partition, sample.mem_gb, sample.num_tasks) == ("gpu", 8, 1)
    assert train.setup == sample.setup == ["module load cuda"]
    assert train.extra == {"mail-type": "END"} and not sample.extra


@pytest.mark.parametrize("stage", ["train", "sample", "latency", "evaluate"])
def test_shipped_settings_are_valid(stage: str) -> None:
    """Wrong: the file that everybody starts from would be refused."""
    load_settings(Path(__file__).parents[3] / JOBS, stage)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("partition: gpu", "partiton: gpu", r"all\.partiton: unknown key; did you mean 'partition'\?"),
        ("nodes: 2", "nodes: 0", r"train\.nodes: input should be greater than or equal to 1, not 0"),
        ("nodes: 2", "nodes: two", r'train\.nodes: input should be a valid integer, not "two"'),
        (", timeout_min: 60", "", r"all\.timeout_min: missing"),
        ("timeout_min: 60", "timeout_min: 2", r"all\.signal_delay_s: 120 seconds before .* set less than 120$"),
        ("nodes: 2", "timeout_min: 1, signal_delay_s: 60", r"train\.signal_delay_s: .* set less than 60$"),
        ("train:", "trian:", r"trian: unknown section; did you mean 'train'\?"),
        ("mail-type: END", "partition: high", r"train\.extra\.partition: set partition instead"),
        ("mail-type: END", "output: x", r"train\.extra\.output: the launcher sets it itself"),
        ("mail-type: END", "--mail-type: END", r"train\.extra\.--mail-type: write the flag as sbatch has it"),
        ("all: {", "all: [", r"not valid YAML"),
        ("nodes: 2", "nodes: 2, nodes: 3", r"not valid YAML: line \d+, column \d+: the key 'nodes' stands twice"),
        ("all: {partition", "- all: {partition", r"not valid YAML|expected a mapping with the sections"),
        ("[module load cuda]", "module load cuda", r'all\.setup: expected a list, not "module load cuda"'),
        ("[module load cuda]", "3", r"all\.setup: expected a list, not 3"),
        ("[module load cuda]", "false", r"all\.setup: expected a list, not false"),
        ("nodes: 2", "nodes: null", r"train\.nodes: input should be a valid integer, not null"),
        ("train: {", "sample: false\ntrain: {", r"sample: expected a mapping of settings, not false"),
        ("partition: gpu", 'partition: "gpu\\n"', r'all\.partition: expected text of one line, not "gpu\\n"'),
        ("mail-type: END", "comment: 1.5", r"train\.extra\.comment: input should be a valid string, not 1\.5"),
        ("mail-type: END", "mail type: END", r"train\.extra\.mail type: write the flag as sbatch has it"),
        ("[module load cuda]", "[3]", r"all\.setup\.0: input should be a valid string, not 3"),
    ],
)
def test_mistakes_are_named(path: Path, old: str, new: str, message: str) -> None:
    """Wrong: a mistyped key would be ignored, and days of a queue spent on the wrong machine."""
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=rf"jobs\.yaml: {message}"):
        load_settings(path, "train")


def test_missing_file_is_named(path: Path) -> None:
    """Wrong: a traceback."""
    with pytest.raises(ValueError, match=r"jobs\.yaml: cannot be read \(No such file or directory\)"):
        load_settings(path, "train")
