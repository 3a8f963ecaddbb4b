"""One job: a rule of the workflow applied to one run, table, figure, dataset, evaluator or photograph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

Files = dict[str, tuple[Path, ...]]


@dataclass(frozen=True)
class Job:
    """What a job reads, writes and depends on.

    Attributes:
        rule: Name of its rule.
        name: What it is applied to.
        inputs: Files by the name that the rule gives them; a name may stand for none or several.
        outputs: Files by name, the most important one first.
        parameters: Values that the result depends on, by their path in the study's resolved parameters
            (`runs.demo_dip.model`, for example).
        spec: The same as canonical JSON in the form that `dip <stage> --spec` takes.
        folder: Folder that the job fills, where its outputs do not name all files.
        began_with: SHA-256 of the inputs that were there as it began, by path; empty of a job that does not run.
    """

    rule: str
    name: str
    inputs: Files
    outputs: dict[str, Path]
    parameters: dict[str, Any]
    spec: str
    folder: Path | None = None
    began_with: Mapping[str, str] = field(default_factory=dict)

    def planned(self, spec: str) -> Job:
        """The job with the parameters that it was planned with.

        Args:
            spec: Its `spec` at that time; the job is one of a run.
        """
        content = json.loads(spec)
        keys = {key: key if key == "code_version" else f"runs.{self.name}.{key}" for key in content}
        return replace(self, spec=spec, parameters={keys[key]: value for key, value in content.items()})

    @property
    def title(self) -> str:
        """As plans and messages name it."""
        return f"{self.rule} {self.name}"

    @property
    def input_files(self) -> tuple[Path, ...]:
        """All inputs, each once."""
        return tuple(dict.fromkeys(path for paths in self.inputs.values() for path in paths))

    @property
    def provenance(self) -> Path:
        """Where it is written what the outputs were made with."""
        return self.outputs["provenance"]
