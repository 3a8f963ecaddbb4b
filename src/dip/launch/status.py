"""`dip status` and `dip cancel`: what became of the runs, and ending one.

All is read from work folders, run folders and squeue; nothing needs the launcher to be alive.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from dip.launch import slurm
from dip.launch.folder import WorkFolder, name_of
from dip.params import known
from dip.paths import WORK, RunFolder, saved_steps
from dip.progress import duration, seconds_left
from dip.schema import Params, Run, TrainingSpec

_STAGES = ("train", "sample", "latency", "evaluate")
_LIVE = ("queued", "requeued", "running", "unknown")
_END_SECONDS = 60  # for a process to save its state


@dataclass(frozen=True)
class RunState:
    """One stage of one run, as it is now.

    Attributes:
        study: None of a run that params.yaml does not name any more.
        state: "not started", "queued", "running", "requeued" (after a preemption, a time limit or the loss of a
            node), "failed", "stopped" (nobody works on it; the same command goes on), "done", or "unknown" (of a job
            where SLURM cannot be asked).
        step: Steps or images done; of a stage that does not run, what it last told.
        rate: Of them per second, None if nobody works on it.
        seconds_left: At that rate.
        job_id: SLURM job, if it is one.
        where: Nodes or process.
        note: Reason of a wait or a failure, in a line.
        outdated: Whether its parameters are not those of params.yaml any more.
    """

    run: str
    study: str | None
    stage: str
    state: str
    step: int | None = None
    total: int | None = None
    rate: float | None = None
    seconds_left: float | None = None
    job_id: str | None = None
    where: str | None = None
    note: str | None = None
    outdated: bool = False

    @property
    def live(self) -> bool:
        """Whether it goes on, as far as can be known."""
        return self.state in _LIVE


def run_states(params: Params, study: str | None = None) -> list[RunState]:
    """The stages of all runs, in the order of params.yaml: every training, and whatever else has begun.

    Of a stage that was done repeatedly, of earlier weights for example, the latest is told; of runs that params.yaml
    does not name any more, what still goes on.

    Args:
        params: The file's content.
        study: Only runs of this study.
    """
    jobs, found = _jobs(), _work_folders()
    states = []
    for run in params.runs.values():
        if study is not None and run.study != study:
            continue
        own = [_state(folder, task, jobs, run) for folder, task in found if task["run"] == run.name]
        # Work with other parameters than those of params.yaml matters while it goes on, earlier work never.
        latest = {state.stage: state for state in own if not state.outdated}
        own = [state for state in own if state.live or state is latest.get(state.stage)]
        if run.checkpoint is None and not any(state.stage == "train" and not state.outdated for state in own):
            done = _trained(run)
            steps = run.num_steps
            own.insert(
                0,
                RunState(run.name, run.study, "train", "done" if done else "not started", steps if done else 0, steps),
            )
        states += sorted(own, key=lambda state: _STAGES.index(state.stage))
    if study is None:
        others = [_state(folder, task, jobs) for folder, task in found if task["run"] not in params.runs]
        states += [state for state in others if state.live]
    return states


def status(params: Params, study: str | None = None, *, as_json: bool = False) -> str:
    """What `dip status` prints.

    Args:
        params: The file's content.
        study: Only runs of this study, those included that have not been started; without it these are counted.
        as_json: A JSON list of `RunState`.
    """
    states = run_states(params, study)
    if as_json:
        return json.dumps([dataclasses.asdict(state) for state in states], indent=2)
    waiting = [state for state in states if study is None and state.state == "not started"]
    rows = [_row(state) for state in states if state not in waiting]
    lines = [tabulate(rows, headers="keys", tablefmt="plain", disable_numparse=True)] if rows else []
    if waiting:
        counts = {name: sum(state.study == name for state in waiting) for name in params.studies}
        text = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
        lines.append(f"not started: {text} (--study lists them)")
    return "\n".join(lines)


def cancel(params: Params, run: str) -> list[str]:
    """End whatever works on a run: SLURM jobs, queued or running, and processes of this machine.

    Returns:
        What was done, a line each.

    Raises:
        ValueError: There is neither such a run nor work of one; SLURM does not answer or refuses; or the process is on
            another machine.
    """
    said = []
    jobs, found = _jobs(), [(folder, task) for folder, task in _work_folders() if task["run"] == run]
    if not found:  # work of a run that was removed from params.yaml can be ended, too
        known(params, "runs", run)
    for folder, task in found:
        state = _state(folder, task, jobs, params.runs.get(run))
        if state.state == "unknown":
            raise ValueError(f"{folder.path}: SLURM job {state.job_id} cannot be cancelled: {state.note}")
        if not state.live:
            continue
        if state.job_id is not None:
            slurm.cancel(state.job_id)
            what = f"cancelled SLURM job {state.job_id}, which was {state.state}"
        else:
            what = _end_process(folder)
        said.append(f"{state.stage} of {run}: {what}; its state stays in {folder.path}")
    return said or [f"nothing works on {run}"]


def _work_folders() -> list[tuple[WorkFolder, dict[str, Any]]]:
    """All work folders with what they are for, the latest last."""
    folders = [WorkFolder(path.parent) for path in sorted(WORK.glob("*/task.json"), key=lambda p: p.stat().st_mtime)]
    return [(folder, task) for folder in folders if (task := folder.read("task"))]


def _jobs() -> list[slurm.Seen] | str:
    """This user's jobs, or why they cannot be known."""
    if not slurm.installed():
        return "squeue is not installed here"
    try:
        return slurm.ask("--me", "--states=all", patient=False)
    except slurm.UnreachableError as error:
        return str(error)


def _state(folder: WorkFolder, task: dict[str, Any], jobs: list[slurm.Seen] | str, run: Run | None = None) -> RunState:
    parameters = {} if run is None else json.loads(run.canonical())
    outdated = any(parameters.get(key) != value for key, value in task["parameters"].items())
    note = "with other parameters than those of params.yaml now" if run else "a run that params.yaml no longer names"
    progress = folder.read("progress") or {}
    state = RunState(
        run=task["run"],
        study=run.study if run else None,
        stage=task["stage"],
        state="stopped",
        step=progress.get("done"),
        total=progress.get("total"),
        outdated=outdated,
        note=note if outdated else None,
    )
    recorded = folder.read("job") or {}
    if isinstance(jobs, str):
        if recorded and recorded.get("state") not in slurm.OVER:
            return replace(state, state="unknown", job_id=recorded["job_id"], note=_notes(jobs, state.note))
    elif seen := next((seen for seen in jobs if seen.name == slurm.job_name(folder.path) and not seen.over), None):
        return _with_job(state, seen, folder, progress)
    if worker := folder.worker():
        return replace(
            state,
            state="running",
            where=name_of(worker),
            rate=progress.get("rate"),
            seconds_left=seconds_left(progress),
        )
    if _made(folder, task["stage"]):
        # Of an evaluation the last progress may be of the reference's images.
        total = task["parameters"].get("num_samples", state.total)
        return replace(state, state="done", step=total, total=total)
    state = replace(state, step=max(saved_steps(folder.path), default=0) if task["stage"] == "train" else None)
    end = folder.read("end") or {}
    if end.get("error"):
        return replace(state, state="failed", job_id=end.get("job_id"), note=end["error"].splitlines()[0])
    if not end and (ended := recorded.get("state")) not in (None, "CANCELLED", "COMPLETED"):
        return replace(state, state="failed", job_id=recorded["job_id"], note=f"SLURM: {ended}")
    return state


def _with_job(state: RunState, seen: slurm.Seen, folder: WorkFolder, progress: dict[str, Any]) -> RunState:
    if seen.waits:
        put_back = slurm.has_started(folder.path, seen.job_id)
        why = _notes(seen.reason, state.note)
        return replace(state, state="requeued" if put_back else "queued", job_id=seen.job_id, note=why)
    note = None if seen.state == "RUNNING" else seen.state.lower()
    return replace(
        state,
        state="running",
        job_id=seen.job_id,
        where=seen.nodes,
        note=note or state.note,
        rate=progress.get("rate"),
        seconds_left=seconds_left(progress),
    )


def _notes(*notes: str | None) -> str:
    return "; ".join(filter(None, notes))


def _made(folder: WorkFolder, stage: str) -> bool:
    """Whether the result is published, or lies ready."""
    published = folder.read("published") or {}
    if published and all(Path(output).exists() for output in published):
        return True
    return stage == "train" and (folder.path / "model.safetensors").exists()


def _trained(run: Run) -> bool:
    """Whether the run's folder has the weights of these parameters, be it without a work folder."""
    folder = RunFolder.of(run.study, run.name)
    try:
        content = json.loads(folder.params.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return folder.model.exists() and content.get("run") == json.loads(run.part(TrainingSpec).canonical())


def _end_process(folder: WorkFolder) -> str:
    """Have the process that works in a folder save and end."""
    worker = folder.worker()
    if worker is None:
        return "it has just ended"
    if worker.get("host") != socket.gethostname():
        raise ValueError(f"{folder.path}: {name_of(worker)} is at work in it; call `dip cancel` there")
    os.kill(worker["pid"], signal.SIGTERM)
    end = time.monotonic() + _END_SECONDS
    while folder.worker() is not None:
        if time.monotonic() > end:
            return f"asked {name_of(worker)} to end; it still does something"
        time.sleep(0.1)
    return f"ended {name_of(worker)}"


def _row(state: RunState) -> dict[str, str]:
    steps = "" if state.step is None else f"{state.step} of {state.total}" if state.total else f"{state.step}"
    return {
        "run": state.run,
        "stage": state.stage,
        "state": state.state,
        "step": steps,
        "rate": "" if state.rate is None else f"{state.rate:.3g}/s",
        "left": "" if state.seconds_left is None else duration(state.seconds_left),
        "job": state.job_id or "",
        "where": state.where or "",
        "note": state.note or "",
    }
