"""`jobs.yaml` of a profile: what a job of each stage asks the cluster for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from dip.nearest import nearest
from dip.params_messages import message_of
from dip.schema.base import Count, CountOr0, Positive, Schema, Text
from dip.strict_yaml import one_line, read_yaml

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


def _of_one_line(value: str) -> str:
    """Refuse a line break, as `partition: |` leaves one behind: what follows it would stand in the job's script."""
    if "\n" in value:
        raise PydanticCustomError("line_break", "expected text of one line")
    return value


_Flag = Annotated[Text, AfterValidator(_of_one_line)]  # what a flag of sbatch is given


class JobSettings(Schema):
    """What one job asks the cluster for; None leaves a thing to the cluster's own default."""

    partition: _Flag | None = None
    account: _Flag | None = None
    qos: _Flag | None = None
    constraint: _Flag | None = None
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
    extra: dict[Text, _Flag | int | bool] = Field(default_factory=dict)

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
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping with the sections {', '.join(sections)}")
    for key, section in content.items():
        if key not in sections:
            raise ValueError(f"{path}: {one_line(key)}: unknown section{nearest(key, sections)}")
        if section is not None and not isinstance(section, dict):
            raise ValueError(f"{path}: {key}: expected a mapping of settings, not {json.dumps(section)[:60]}")
    own = content.get(stage) or {}
    merged = {**(content.get("all") or {}), **own}
    if merged.get("setup", []) is None:
        merged["setup"] = []
    try:
        settings = JobSettings.model_validate(merged, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        place = (part for part in map(str, first["loc"][:2]) if part)  # below a flag of `extra` stand kinds of values
        where = one_line(f"{path}: {stage if key in own else 'all'}.{'.'.join(place)}")
        if first["type"] == "extra_forbidden":
            raise ValueError(f"{where}: unknown key{nearest(key, JobSettings.model_fields)}") from None
        raise ValueError(one_line(f"{where}: {message_of(first)}")) from None
    _check_extra(settings, f"{path}: {stage if 'extra' in own else 'all'}.extra")
    if settings.signal_delay_s >= 60 * settings.timeout_min:
        where = f"{path}: {stage if {'signal_delay_s', 'timeout_min'} & own.keys() else 'all'}.signal_delay_s"
        raise ValueError(
            f"{where}: {settings.signal_delay_s} seconds before the end of a job of timeout_min = "
            f"{settings.timeout_min} it has not begun; set less than {60 * settings.timeout_min}"
        )
    return settings


def _check_extra(settings: JobSettings, where: str) -> None:
    for flag in settings.extra:
        if not re.fullmatch("[a-z][a-z0-9-]*", flag):
            raise ValueError(f"{where}.{one_line(flag)}: write the flag as sbatch has it, without the dashes in front")
        if flag in _TAKEN:
            instead = f"set {_TAKEN[flag]} instead" if _TAKEN[flag] else "the launcher sets it itself"
            raise ValueError(f"{where}.{flag}: {instead}")
