"""Several processes train as one does, stop together and fail together."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processes import run_processes
from safetensors.torch import load_file

from dip.launch.folder import WorkFolder
from dip.launch.jobs import TrainingJob
from dip.paths import RunFolder
from dip.schema import TrainingSpec
from dip.training import loop
from dip.training.distributed import Place, microbatches
from dip.training.loop import train

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[003-004],cpu1",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}
TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    "environment",
    [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"}],
)
def test_one_process_needs_nothing(environment: dict[str, str]) -> None:
    """Wrong: a training in a job's own shell would wait for tasks that nobody started."""
    assert Place.of(environment) == Place(0, 1, 0, None)


def test_place_under_torchrun_and_under_srun() -> None:
    """Wrong: processes would not find each other, or would all take the first GPU."""
    assert Place.of(TORCHRUN) == Place(3, 4, 1, "node:29500")
    assert Place.of(SLURM | TORCHRUN) == Place(3, 4, 1, "node:29500"), "torchrun inside of srun"
    place = Place.of(SLURM)
    assert (place.rank, place.size, place.local_rank) == (3, 4, 1)


@pytest.mark.parametrize(
    ("nodes", "names", "host"),
    [
        ("1", "gpu7", "127.0.0.1"),
        ("2", "gpu[003-004],cpu1", "gpu003"),
        ("2", "a,b", "a"),
        ("2", "rack2-gpu[7,9]-ib", "rack2-gpu7-ib"),
    ],
)
def test_processes_meet_on_the_first_node(nodes: str, names: str, host: str) -> None:
    """Wrong: a training on several nodes would not start."""
    place = Place.of(SLURM | {"SLURM_STEP_NUM_NODES": nodes, "SLURM_STEP_NODELIST": names})
    assert place.address is not None
    address, port = place.address.split(":")
    assert address == host and 10_000 <= int(port) < 30_000


def test_jobs_on_one_node_meet_at_different_ports() -> None:
    """Wrong: two trainings on a node, or a job and what is left of it before a requeue, would join each other."""
    changes: list[dict[str, str]] = [{}, {"SLURM_JOB_ID": "8"}, {"SLURM_STEP_ID": "1"}, {"SLURM_RESTART_COUNT": "1"}]
    assert len({Place.of(SLURM | change).address for change in changes}) == 4


@pytest.mark.parametrize("missing", ["SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST"])
def test_half_an_environment_is_refused(missing: str) -> None:
    """Wrong: every process would believe that it is the first, and all would write the same files."""
    with pytest.raises(ValueError, match=rf"SLURM_STEP_NUM_TASKS says .* \(KeyError: '{missing}'\)"):
        Place.of({key: value for key, value in SLURM.items() if key != missing})


@pytest.mark.parametrize(("size", "micro_batch"), [(1, None), (1, 3), (2, None), (2, 2), (3, 4), (4, 1), (6, 64)])
def test_global_batch_is_shared_out(size: int, micro_batch: int | None) -> None:
    """Wrong: some images would be seen twice or by nobody, or portions of different size would count the same."""
    shares = [microbatches(12, Place(rank, size), micro_batch) for rank in range(size)]
    assert [index for share in shares for part in share for index in part] == list(range(12))
    assert len({len(part) for share in shares for part in share}) == 1
    assert len(shares[0][0]) == min(micro_batch or 12, 12 // size)


def test_batch_that_does_not_divide_is_refused() -> None:
    """Wrong: images would be dropped without a word."""
    with pytest.raises(ValueError, match=r"training\.batch_size is 12, which is not divisible by 5 processes"):
        microbatches(12, Place(0, 5))
    with pytest.raises(ValueError, match=r"each process has 6 images .* choose a --micro-batch that divides 6"):
        microbatches(12, Place(0, 2), 4)


@pytest.mark.parametrize("micro_batch", [0, -2])
def test_portions_have_at_least_an_image(micro_batch: int) -> None:
    """Wrong: an untrained model would be published, because no image was seen."""
    with pytest.raises(ValueError, match=rf"not divisible by the micro-batch of {micro_batch}; choose"):
        microbatches(12, Place(0, 2), micro_batch)


def learn(rank: int, spec: str, work: str, settings: dict[str, Any]) -> None:
    train(TrainingSpec.parse(spec), Path(work), **settings)


def learn_until_told(rank: int, spec: str, work: str) -> None:
    """The third process gets SIGTERM in its sixth step, inside a line of the log."""
    original = loop.draw

    def draw(*arguments: Any, **settings: Any) -> Any:
        if rank == 2 and settings["step"] == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **settings)

    loop.draw = draw
    learn(rank, spec, work, {})


def fail(rank: int, spec: str, work: str) -> None:
    """One process fails in its third step."""
    original = loop.draw

    def draw(*arguments: Any, **settings: Any) -> Any:
        if rank == 1 and settings["step"] == 2:
            raise RuntimeError("the memory of this GPU is broken")
        return original(*arguments, **settings)

    loop.draw = draw
    learn(rank, spec, work, {})


def succeed(results: list[tuple[int, str]]) -> None:
    assert all(code == 0 and "Warning" not in printed for code, printed in results), results


def losses(work: str) -> list[list[float]]:
    lines = map(json.loads, (Path(work) / "training.jsonl").read_text().splitlines())
    return [[line["velocity_loss"], line["gradient_norm"]] for line in lines]


@pytest.fixture
def shared(spec: TrainingSpec) -> TrainingSpec:
    """A batch that four processes can share in two portions each; a line of the log is four steps."""
    changes = {"batch_size": 8, "log_every": 4, "epochs": 6, "gradient_clip": 0.5}
    return spec.model_copy(update={"training": spec.training.model_copy(update=changes)})


@pytest.mark.slow
def test_any_number_of_processes_and_portions_gives_the_same_curve(workplace: Path, shared: TrainingSpec) -> None:
    """Wrong: the result would depend on the number of GPUs, or on how many images fit into one."""
    train(shared, Path("reference"))
    expected = load_file("reference/model.safetensors")
    for size, micro_batch in ((1, 2), (2, 1), (4, None)):
        work, settings = f"work-{size}-{micro_batch}", {"micro_batch": micro_batch}
        if size == 1:
            train(shared, Path(work), micro_batch=micro_batch)
        else:
            succeed(run_processes(size, learn, shared.canonical(), work, settings))
        np.testing.assert_allclose(losses(work), losses("reference"), rtol=2e-5, err_msg=work)
        for name, value in load_file(f"{work}/model.safetensors").items():
            np.testing.assert_allclose(value, expected[name], atol=2e-5, err_msg=f"{work} {name}")


@pytest.mark.slow
def test_interrupted_processes_go_on_to_the_byte(workplace: Path, shared: TrainingSpec) -> None:
    """Wrong: a signal to one process would leave the others waiting; or the order of sums would change on a resume."""
    succeed(run_processes(4, learn, shared.canonical(), "uninterrupted", {}))
    results = run_processes(4, learn_until_told, shared.canonical(), "work")
    assert [code for code, _ in results] == [143] * 4, results
    (state,) = Path("work").glob("state-*.json")
    assert 6 <= json.loads(state.read_text())["step"] <= 8
    succeed(run_processes(4, learn, shared.canonical(), "work", {}))
    assert Path("work/model.safetensors").read_bytes() == Path("uninterrupted/model.safetensors").read_bytes()
    assert losses("work") == losses("uninterrupted")


@pytest.mark.slow
def test_process_that_fails_ends_the_others(workplace: Path, shared: TrainingSpec) -> None:
    """Wrong: the GPUs of the others would be held until the time limit, with nothing in the log."""
    start = time.monotonic()
    results = run_processes(3, fail, changed_batch(shared, 6).canonical(), "work")
    assert time.monotonic() - start < 30
    assert all(code not in (0, None) for code, _ in results)
    assert "process 1 of 3 failed:" in results[1][1] and "the memory of this GPU is broken" in results[1][1]
    assert not (Path("work") / "model.safetensors").exists()


@pytest.mark.slow
def test_processes_must_share_the_batch(workplace: Path, shared: TrainingSpec) -> None:
    """Wrong: the error would come from within torch, or after the model has been made."""
    results = run_processes(3, learn, shared.canonical(), "work", {})
    assert all("batch_size is 8, which is not divisible by 3 processes" in error for _, error in results)
    assert not Path("work").exists()


def work_as(rank: int, job: TrainingJob) -> None:
    Path(f"started-{rank}").touch()
    job()


@pytest.mark.slow
def test_training_that_is_finished_in_the_meantime_is_left_by_all(workplace: Path, shared: TrainingSpec) -> None:
    """Wrong: the first process, which waits for the folder, would leave the others waiting for it, for 15 minutes."""
    job = TrainingJob.of("dip", RunFolder.of("demo", "dip"), shared)
    folder = WorkFolder(job.work)
    folder.open(job.task)

    def outlive_the_launcher() -> None:
        with folder.working(0):
            held.set()
            while not Path("started-1").exists():
                time.sleep(0.1)
            time.sleep(2)
            (job.work / "model.safetensors").write_bytes(b"finished")

    held = threading.Event()
    threading.Thread(target=outlive_the_launcher).start()
    held.wait()
    succeed(run_processes(2, work_as, job))
    assert (job.work / "model.safetensors").read_bytes() == b"finished"


def changed_batch(spec: TrainingSpec, batch_size: int) -> TrainingSpec:
    return spec.model_copy(update={"training": spec.training.model_copy(update={"batch_size": batch_size})})
