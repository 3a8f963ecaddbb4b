"""What is asked of SLURM, and what its answers mean; `fake_slurm` answers in its place."""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import shutil
import signal
from pathlib import Path

import pytest
from fake_slurm import FakeSlurm

from dip.launch import slurm
from dip.launch.folder import WorkFolder
from dip.launch.jobs import LatencyJob, TrainingJob
from dip.launch.launcher import JobFailedError, Launcher, launch
from dip.launch.settings import JobSettings
from dip.paths import RunFolder
from dip.schema import TrainingSpec

SETTINGS = JobSettings(
    partition="gpu", account="lab", nodes=2, gpus_per_node=4, tasks_per_node=4, cpus_per_task=8, mem_gb=0.5,
    timeout_min=90, poll_seconds=0.01, setup=["module load cuda"], extra={"reservation": "dip"},
)  # fmt: skip


@pytest.fixture
def job(workplace: Path, spec: TrainingSpec, fake_slurm: FakeSlurm) -> TrainingJob:
    """The training of the run `dip`, its work folder made."""
    job = TrainingJob.of("dip", RunFolder.of("demo", "dip"), spec)
    WorkFolder(job.work).open(job.task)
    return job


@pytest.fixture
def launcher(workplace: Path) -> Launcher:
    """Jobs of one process."""
    Path("jobs.yaml").write_text("all: {partition: gpu, timeout_min: 9, poll_seconds: 0.01, max_resubmissions: 1}")
    return Launcher("slurm", jobs=Path("jobs.yaml"))


def row(job: TrainingJob, state: str, reason: str = "None", number: int = 7) -> str:
    return f"{number}|{slurm.job_name(job.work)}|{state}|{reason}|node3"


def test_script_asks_for_what_the_settings_say(job: TrainingJob, fake_slurm: FakeSlurm) -> None:
    """Wrong: a job would get less than it was meant to, or none of the signals that it saves by."""
    assert slurm.submit(job, SETTINGS, Path("jobs.yaml")) == "7"
    flags = {line.removeprefix("#SBATCH --") for line in fake_slurm.script if line.startswith("#SBATCH")}
    assert flags >= {
        "partition=gpu", "account=lab", "nodes=2", "gpus-per-node=4", "ntasks-per-node=4", "cpus-per-task=8",
        "mem=512M", "time=90", "signal=USR2@120", "requeue", "dependency=singleton", "reservation=dip",
    }  # fmt: skip
    assert not [flag for flag in flags if flag.startswith(("qos", "constraint", "wckey"))]
    text = "\n".join(fake_slurm.script)
    assert text.index("export OMP_NUM_THREADS=8") < text.index("module load cuda") < text.index("srun")
    assert "--cpus-per-task=8 --kill-on-bad-exit=1" in text.split("srun", 1)[1]
    assert 'trap "" USR2' in text.split("srun", 1)[1], "an early warning would kill the job"
    assert pickle.loads((slurm.logs_of(job.work) / "7_submitted.pkl").read_bytes()).function == job


@pytest.mark.parametrize(
    ("said", "keys"),
    [
        ("sbatch: error: invalid partition specified: x", "train.partition"),
        ("sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
         "train.account, train.partition"),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", "train.qos"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available",
         "train.gpus_per_node, train.nodes, train.tasks_per_node, train.cpus_per_task, train.mem_gb"),
        ("sbatch: error: Invalid feature specification", "train.constraint"),
        ("sbatch: unrecognized option '--reservatoin=x'", "train.extra"),
        ("sbatch: error: Batch job submission failed: Requested reservation is invalid", "train.extra"),
        ("sbatch: error: Batch job submission failed: Invalid license specification", "train.extra"),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit", "train.timeout_min, train.qos"),
        ("sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)",
         "train.partition"),
    ],
)  # fmt: skip
def test_refusal_names_the_key(job: TrainingJob, fake_slurm: FakeSlurm, said: str, keys: str) -> None:
    """Wrong: a person would see sbatch's words and not know which line of the profile to change."""
    fake_slurm.refuse(said)
    message = said.removeprefix("sbatch: ").removeprefix("error: ")
    with pytest.raises(ValueError) as error:
        slurm.submit(job, SETTINGS, Path("jobs.yaml"))
    assert str(error.value) == f"SLURM refuses the job: {message}. See {keys} in jobs.yaml"


def test_scheduler_that_does_not_answer_is_tried_again(
    job: TrainingJob, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: the restart of a scheduler would end a workflow; or a submission that arrived would be repeated."""
    fake_slurm.refuse("sbatch: error: Batch job submission failed: Unable to contact slurm controller")
    assert slurm.submit(job, SETTINGS, Path("jobs.yaml")) == "7"
    assert len(fake_slurm.told("submitted")) == 2
    fake_slurm.refuse("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    fake_slurm.queue(row(job, "PENDING", number=8))
    assert slurm.submit(job, SETTINGS, Path("jobs.yaml")) == "8"
    assert len(fake_slurm.told("submitted")) == 3
    fake_slurm.queue("error: Unable to contact slurm controller", "error: still not", row(job, "RUNNING"))
    with caplog.at_level("INFO"):
        seen = slurm.find(job.work, "7")
    assert seen is not None and seen.job_id == "7"
    assert caplog.text.count("asking again until SLURM answers") == 1
    assert "SLURM answers again" in caplog.text
    fake_slurm.queue("error: Unable to contact slurm controller")
    with pytest.raises(slurm.UnreachableError, match="SLURM does not answer"):
        slurm.ask("--me", patient=False)


def test_submission_that_arrived_unheard_finds_what_it_has_to_run(
    job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm
) -> None:
    """Wrong: the job would look in vain for what submitit leaves under its number when sbatch has told it, and fail."""
    fake_slurm.refuse("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    fake_slurm.queue("", row(job, "PENDING", number=8), row(job, "CANCELLED", number=8))
    with pytest.raises(JobFailedError, match="SLURM job 8 of dip was cancelled"):
        launch(job, launcher)
    handed_over = pickle.loads((slurm.logs_of(job.work) / "8_submitted.pkl").read_bytes())
    assert handed_over.function == job
    assert (handed_over._timeout_min, handed_over._timeout_countdown) == (9, 100)


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying\n"
        "sbatch: error: Batch job submission failed: Resource temporarily unavailable",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ],
)
def test_full_queue_is_waited_for(
    job: TrainingJob, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture, said: str
) -> None:
    """Wrong: a workflow would end, with keys that do not help, for what passes when other jobs do."""
    fake_slurm.refuse(said, times=3)
    assert slurm.submit(job, SETTINGS, Path("jobs.yaml")) == "7"
    assert len(fake_slurm.told("submitted")) == 4
    assert caplog.text.count("trying again") == 1


def test_forgotten_job_is_gone(job: TrainingJob, fake_slurm: FakeSlurm) -> None:
    """Wrong: a launcher would wait for ever for a job that SLURM has forgotten, or for another's of its number."""
    fake_slurm.queue("error: Invalid job id specified")
    assert slurm.look(job.work, "7") is None
    fake_slurm.queue("7|somebody-elses|RUNNING|None|node3")
    assert slurm.look(job.work, "7") is None
    assert slurm.find(job.work, "7") is None


@pytest.mark.parametrize(
    ("reason", "keys"),
    [
        ("PartitionTimeLimit", "train.timeout_min"),
        ("MaxMemPerLimit", "train.mem_gb"),
        ("Job's account not permitted to use this partition (gpu allows root not lab)",
         "train.account, train.partition"),
        ("Job's QOS not permitted to use this partition (gpu allows short not normal)", "train.qos, train.partition"),
        ("User's group not permitted to use this partition", "train.partition"),
        ("QOSMaxWallDurationPerJobLimit", "train.timeout_min, train.qos"),
        ("QOSMaxGRESPerJob", "train.gpus_per_node, train.nodes, train.qos"),
        ("QOSMaxNodePerJobLimit", "train.nodes, train.qos"),
        ("QOSMaxCpuPerJobLimit", "train.cpus_per_task, train.tasks_per_node, train.nodes, train.qos"),
        ("QOSMaxMemoryPerJob", "train.mem_gb, train.nodes, train.qos"),
        ("QOSMinGRES", "train.gpus_per_node, train.nodes, train.qos"),
        ("QOSMinCpuNotSatisfied", "train.cpus_per_task, train.tasks_per_node, train.nodes, train.qos"),
        ("AssocMaxWallDurationPerJobLimit", "train.timeout_min, train.account"),
        ("AssocMaxNodePerJobLimit", "train.nodes, train.account"),
        ("AssocMaxGRESMinutesPerJob", "train.gpus_per_node, train.nodes, train.timeout_min, train.account"),
    ],
)  # fmt: skip
def test_job_that_can_never_start_is_cancelled(job: TrainingJob, fake_slurm: FakeSlurm, reason: str, keys: str) -> None:
    """Wrong: it would wait in the queue for ever, and the launcher with it. The reasons are SLURM 22.05's own."""
    fake_slurm.queue(row(job, "PENDING", "Priority"), row(job, "PENDING", reason))
    with pytest.raises(ValueError) as error:
        slurm.follow(job, "7", SETTINGS, Path("jobs.yaml"))
    assert str(error.value) == f"SLURM would never start the job: {reason}. See {keys} in jobs.yaml"
    assert fake_slurm.told("cancelled") == ["7"]


@pytest.mark.parametrize(
    "reason",
    ["AssocGrpGRES", "AssocGrpGRESMinutes", "AssocMaxJobsLimit", "QOSMaxGRESPerUser", "QOSMaxJobsPerUserLimit",
     "QOSGrpNodeLimit", "MaxGRESPerAccount", "PartitionDown", "Resources", "ReqNodeNotAvail, Reserved for maintenance"],
)  # fmt: skip
def test_job_that_waits_for_others_is_waited_for(job: TrainingJob, fake_slurm: FakeSlurm, reason: str) -> None:
    """Wrong: a job would be taken out of the queue where the end of another, or of a repair, would start it."""
    fake_slurm.queue(row(job, "PENDING", reason), row(job, "COMPLETED"))
    assert slurm.follow(job, "7", SETTINGS, Path("jobs.yaml")) == "COMPLETED"
    assert not fake_slurm.told("cancelled")


def test_job_whose_reservation_has_ended_is_cancelled(job: TrainingJob, fake_slurm: FakeSlurm) -> None:
    """Wrong: SLURM holds it for ever, in a state of its own, in which it would be taken for running."""
    fake_slurm.queue(row(job, "PENDING", "Reservation"), row(job, "RESV_DEL_HOLD", "Reservation night was deleted"))
    with pytest.raises(ValueError, match=r"never start the job: Reservation night was deleted\. See train\.extra in j"):
        slurm.follow(job, "7", SETTINGS, Path("jobs.yaml"))
    assert fake_slurm.told("cancelled") == ["7"]


def test_launcher_submits_follows_and_reports(
    job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture
) -> None:
    """Wrong: a failed job would leave the person without its reason, in a file they would have to look for."""
    fake_slurm.queue("", row(job, "PENDING", "Priority"), row(job, "RUNNING"), row(job, "FAILED"))
    logs = slurm.logs_of(job.work)
    logs.mkdir()
    (logs / "7_0_log.err").write_text("\n".join(["waiting for the others"] * 99))
    (logs / "7_1_log.err").write_text("Traceback (most recent call last):\nZeroDivisionError: the cause\n")
    with caplog.at_level("INFO"), pytest.raises(JobFailedError, match=r"ended without a result \(FAILED\)") as error:
        launch(job, launcher)
    lines = str(error.value).splitlines()
    assert lines[1:4] == [f"--- end of {logs}/7_1_log.err", "Traceback (most recent call last):",
                          "ZeroDivisionError: the cause"]  # fmt: skip
    assert lines.count("waiting for the others") == 30
    assert "SLURM job 7 of dip: pending (Priority)" in caplog.text
    assert "SLURM job 7 of dip: running (node3)" in caplog.text
    assert json.loads((job.work / "job.json").read_text()) == {"job_id": "7", "state": "FAILED"}


def test_recorded_job_is_followed_and_its_result_published(
    job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm
) -> None:
    """Wrong: a restarted workflow would start a second job beside the first, in the same folder."""
    launch(job)
    for output in job.outputs:
        output.unlink()
    (job.work / "model.safetensors").rename(job.work / "later")
    WorkFolder(job.work).note("job", {"job_id": "7"})
    fake_slurm.queue(row(job, "RUNNING"), row(job, "RUNNING"))
    finished, original = [], slurm.follow

    def follow(*arguments: object) -> str:
        finished.append((job.work / "later").rename(job.work / "model.safetensors"))
        fake_slurm.queue(row(job, "COMPLETED"))
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "follow", follow)
        launch(job, launcher)
    assert finished and job.target.model.exists()
    assert not fake_slurm.told("submitted")


def test_worker_of_this_machine_is_waited_for(
    job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong: a job would wait in the queue, or fail in the folder, for what a process here is about to finish."""
    for name in ("params.json", "training.jsonl", "training.csv"):
        (job.work / name).touch()
    worker = contextlib.ExitStack()
    worker.enter_context(WorkFolder(job.work).working(0))

    def finish(seconds: float) -> None:
        (job.work / "model.safetensors").touch()
        worker.close()

    monkeypatch.setattr("dip.launch.launcher.time.sleep", finish)
    launch(job, launcher)
    assert job.target.model.exists() and not fake_slurm.told("submitted")


@pytest.mark.parametrize(
    ("state", "end", "submissions"),
    [
        ("NODE_FAIL", None, 2),
        ("PREEMPTED", None, 2),
        ("FAILED", {"job_id": "7", "terminated": True}, 2),
        ("FAILED", {"job_id": "6", "terminated": True}, 1),
        ("CANCELLED", {"job_id": "7", "terminated": True}, 1),
        ("OUT_OF_MEMORY", None, 1),
    ],
)
def test_lost_job_is_submitted_again(
    job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm, state: str, end: object, submissions: int
) -> None:
    """Wrong: the cluster's doing would end a workflow; or a failing job would be repeated for ever."""
    (job.work / "end.json").write_text(json.dumps(end))
    fake_slurm.queue("", row(job, state))
    with pytest.raises(JobFailedError):
        launch(job, launcher)
    assert len(fake_slurm.told("submitted")) == submissions


@pytest.mark.parametrize(
    ("state", "keys"), [("OUT_OF_MEMORY", "train.mem_gb"), ("TIMEOUT", "train.timeout_min, train.signal_delay_s")]
)
def test_end_for_want_of_something_names_the_key(
    job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm, caplog: pytest.LogCaptureFixture, state: str, keys: str
) -> None:
    """Wrong: the same command would end so again, and a training without a checkpoint would have told so to nobody."""
    fake_slurm.queue("", row(job, state))
    with pytest.raises(JobFailedError) as error:
        launch(job, launcher)
    first = str(error.value).splitlines()[0]
    assert first == f"SLURM job 7 of dip ended without a result ({state}). See {keys} in jobs.yaml"
    lost = "SLURM job 7 was lost (TIMEOUT); no checkpoint yet; submitting it again"
    assert (lost in caplog.text) == (state == "TIMEOUT")


def test_what_starts_anew_is_put_back_once(job: TrainingJob, fake_slurm: FakeSlurm) -> None:
    """Wrong: a measurement that takes longer than its time limit would occupy a node a hundred times."""
    slurm.submit(LatencyJob(job.run, job.target, job.work, job.spec), SETTINGS, Path("jobs.yaml"))
    handed_over = pickle.loads((slurm.logs_of(job.work) / "7_submitted.pkl").read_bytes())
    assert handed_over._timeout_countdown == 1


def test_too_many_time_limits_name_the_key(job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm) -> None:
    """Wrong: a traceback of submitit, and no word on what to change."""
    said = "UncompletedJobError: Job not requeued because: timed-out too many times."
    (job.work / "end.json").write_text(json.dumps({"job_id": "7", "terminated": False, "error": said}))
    fake_slurm.queue("", row(job, "FAILED"))
    with pytest.raises(JobFailedError, match=r"\(FAILED\)\. See train\.timeout_min, train\.signal_delay_s in jobs"):
        launch(job, launcher)


def test_folder_that_was_removed_is_told(job: TrainingJob, launcher: Launcher, fake_slurm: FakeSlurm) -> None:
    """Wrong: a job that could not open its log would fail without a word on why."""
    fake_slurm.queue("", row(job, "FAILED"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slurm, "follow", lambda *_: shutil.rmtree(job.work) or "FAILED")
        with pytest.raises(JobFailedError, match=r"work/dip-\w+/slurm, where .* was removed; the same command starts"):
            launch(job, launcher)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_launcher_that_is_ended_says_what_becomes_of_its_job(
    job: TrainingJob, launcher: Launcher, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    """Wrong: a workflow that is ended would leave jobs behind without a word."""
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(slurm, "follow", lambda *_: signal.raise_signal(number))
        with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as end:
            launch(job, launcher)
    assert number == signal.SIGINT or end.value.code == 128 + number
    assert "SLURM job 7 goes on without this process; `dip cancel dip` ends it" in caplog.text
    assert signal.getsignal(number) is before


def test_machine_without_slurm_is_told_so(job: TrainingJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wrong: a traceback of submitit, or a wait for a scheduler that is not there."""
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="squeue is not installed here"):
        slurm.find(job.work, None)
    with pytest.raises(ValueError, match="sbatch is not installed here; use --launcher local"):
        slurm.submit(job, SETTINGS, Path("jobs.yaml"))


def test_names_differ_between_checkouts(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong: the same run in another checkout would wait for this one's job, or take it for its own."""
    first = slurm.job_name(Path("work/dip-1"))
    (workplace / "other").mkdir()
    monkeypatch.chdir("other")
    assert slurm.job_name(Path("work/dip-1")) != first
