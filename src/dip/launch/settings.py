"""`jobs.yaml` of a profile: what a job of each stage asks the cluster for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from dip.nearest import nearest
from dip.schema.base import Count, CountOr0, Positive, Schema, Text
from dip.strict_yaml import read_yaml

# Flags of sbatch that the launcher or submitit set themselves, and the key to use instead where there is one.
_TAKEN = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "nodes": "nodes",
    "gpus-per-node": "gpus_per_node",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "mem_gb",
    "time": "timeout_min",
    "signal": "signal_delay_s",
    **dict.fromkeys(("job-name", "output", "error", "open-mode", "array", "dependency", "chdir", "requeue")),
}


class JobSettings(Schema):
    """What one job asks the cluster for; None leaves a thing to the cluster's own default."""

    partition: Text | None = None
    account: Text | None = None
    qos: Text | None = None
    constraint: Text | None = None
    nodes: Count = 1
    gpus_per_node: CountOr0 = 0
    tasks_per_node: Count = 1
    cpus_per_task: Count = 1
    mem_gb: Positive | None = None
    timeout_min: Count
    signal_delay_s: Count = 120
    max_timeouts: CountOr0 = 100
    max_resubmissions: CountOr0 = 5
    poll_seconds: Positive = 15
    setup: list[Text] = Field(default_factory=list)
    extra: dict[Text, str | int | bool] = Field(default_factory=dict)

    @property
    def num_tasks(self) -> int:
        """Processes of the job."""
        return self.nodes * self.tasks_per_node


def load_settings(path: Path, stage: str) -> JobSettings:
    """Settings of a stage's jobs: those of `all`, with those of the stage on top.

    Args:
        path: The file.
        stage: "train", "sample", "latency" or "evaluate".

    Raises:
        ValueError: The file is missing, is not YAML, or has a mistake; the first one is named with its key.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); --slurm names the file") from None
    except ValueError as error:  # also of bytes that are no text
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    sections = ("all", "train", "sample", "latency", "evaluate")
    if not isinstance(content, dict) or not all(isinstance(content[key] or {}, dict) for key in content):
        raise ValueError(f"{path}: expected a mapping with the sections {', '.join(sections)}")
    for key in content:
        if key not in sections:
            raise ValueError(f"{path}: {key}: unknown section{nearest(key, sections)}")
    own = content.get(stage) or {}
    merged = {**(content.get("all") or {}), **own}
    try:
        settings = JobSettings.model_validate({**merged, "setup": merged.get("setup") or []}, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        where = f"{path}: {stage if key in own else 'all'}.{'.'.join(map(str, first['loc']))}"
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{where}: unknown key{nearest(key, JobSettings.model_fields)}") from None
        raise ValueError(f"{where}: {_problem(first)}") from None
    _check_extra(settings, f"{path}: {stage if 'extra' in own else 'all'}.extra")
    if settings.signal_delay_s >= 60 * settings.timeout_min:
        where = f"{path}: {stage if {'signal_delay_s', 'timeout_min'} & own.keys() else 'all'}.signal_delay_s"
        raise ValueError(
            f"{where}: {settings.signal_delay_s} seconds before the end of a job of timeout_min = "
            f"{settings.timeout_min} it has not begun; set less than {60 * settings.timeout_min}"
        )
    return settings


def _problem(mistake: Any) -> str:
    if mistake["type"] == "missing":
        return "missing"
    return f"{mistake['msg'][:1].lower()}{mistake['msg'][1:]}, not {mistake['input']!r}"


def _check_extra(settings: JobSettings, where: str) -> None:
    for flag in settings.extra:
        if flag.startswith("-") or "_" in flag:
            raise ValueError(f"{where}.{flag}: write the flag as sbatch has it, without the dashes in front")
        if flag in _TAKEN:
            instead = f"set {_TAKEN[flag]} instead" if _TAKEN[flag] else "the launcher sets it itself"
            raise ValueError(f"{where}.{flag}: {instead}")
