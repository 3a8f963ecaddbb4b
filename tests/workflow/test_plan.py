"""What Snakemake plans with the params.yaml of the repository, before anything is made; and its refusals."""

from __future__ import annotations

import re
import shutil

import pytest

from project import REPOSITORY, Project

PROFILES = ["slurm", "workflow/profiles/demo", "workflow/profiles/local"]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A fresh clone, without data: nothing is run in it."""
    return Project.create(tmp_path_factory.mktemp("shipped") / "project", REPOSITORY / "params.yaml")


def runs_of(jobs: set[str], rule: str) -> set[str]:
    return {job.split()[1] for job in jobs if job.split()[0] == rule}


def test_table2_of_the_paper_takes_eight_trainings(shipped: Project) -> None:
    """Table 2 has eight rows; a missing training is a missing row, one more is days of GPUs for nothing."""
    jobs = shipped.plan("results/table2.csv", profile="slurm")
    assert runs_of(jobs, "train") == {
        "dit_26x1152",
        "dit_32x1152",
        "dit_26x1280",
        "dit_26x1536",
        "dip_mlp",
        "dip_attention",
        "dip_coordinate",
        "dip_xl_16",
    }
    assert runs_of(jobs, "milestone") == {"dip_xl_16_ep160"}
    assert runs_of(jobs, "table") == {"table2"}
    assert len(runs_of(jobs, "evaluate")) == 8


def test_slurm_profile_plans_the_whole_paper_study(shipped: Project) -> None:
    """Without a target the slurm profile builds the paper study, and nothing of the others."""
    jobs = shipped.plan(profile="slurm")
    assert runs_of(jobs, "table") == {"table1", "table2", "table3", "placement", "cost"}
    assert runs_of(jobs, "figure") == {"figure10", "theory"}
    assert runs_of(jobs, "prepare") == {"imagenet256", "imagenet512"}
    assert not {run for run in runs_of(jobs, "train") if run.startswith(("demo_", "small_"))}


def test_a_gallery_takes_one_training_and_no_samples(shipped: Project) -> None:
    """Galleries draw images of their own; 50,000 samples would be made for nothing."""
    jobs = shipped.plan("results/figure13.png", "results/figure25.pdf", profile="slurm")
    assert runs_of(jobs, "train") == {"dip_xl_16", "dip_xl_32_512"}
    assert runs_of(jobs, "figure") == {"figure13", "figure25"}
    assert {job.split()[0] for job in jobs} == {"prepare", "train", "experiment", "figure"}


def test_a_sweep_of_guidance_trains_once(shipped: Project) -> None:
    """Every point would be a training of its own instead of another sampling of the same weights."""
    jobs = shipped.plan("results/demo/guidance.pdf")
    assert runs_of(jobs, "train") == {"demo_dip"}
    assert len(runs_of(jobs, "sample")) == len(runs_of(jobs, "evaluate")) == 6


def test_a_sweep_of_ema_decays_trains_once(shipped: Project) -> None:
    """Every decay would be a training of its own, or the weights that one training kept would not be published."""
    jobs = shipped.plan("results/demo/ema.pdf")
    assert runs_of(jobs, "train") == {"demo_dip"}
    assert len(runs_of(jobs, "milestone")) == 6
    assert len(runs_of(jobs, "sample")) == len(runs_of(jobs, "evaluate")) == 8


@pytest.mark.parametrize("options", [(), ("--set-resources", "train:speed=plain"), ("--config", "study=demo")])
def test_slurm_profile_hands_work_to_slurm(shipped: Project, options: tuple[str, ...]) -> None:
    """Days of GPU work must not run on the login node, also with options that replace a list of the profile."""
    target = "results/demo/runs/demo_dit/latency.json"
    other = "results/demo/runs/demo_dit/metrics.json"
    output = shipped.dry_run("--printshellcmds", target, other, *options, profile="slurm").stdout
    for stage in ("train", "sample", "latency", "evaluate"):
        (line,) = (line for line in output.splitlines() if f"dip {stage} demo_dit" in line)
        assert line.endswith("--launcher slurm") or "--launcher slurm " in line


def test_one_stage_can_stay_on_the_login_node(shipped: Project) -> None:
    """A cluster whose GPUs are taken could not evaluate beside its queue."""
    arguments = ("results/demo/runs/demo_dit/metrics.json", "--set-resources", "evaluate:launcher=local")
    output = shipped.dry_run("--printshellcmds", *arguments, profile="slurm").stdout
    launchers = dict(re.findall(r"dip (train|sample|evaluate) demo_dit .*--launcher (\w+)", output))
    assert launchers == {"train": "slurm", "sample": "slurm", "evaluate": "local"}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_target_of_the_demo_is_planned_in_every_profile(shipped: Project, profile: str) -> None:
    """The path names the study; the profile only says where it runs."""
    jobs = shipped.plan("results/demo/table2.csv", profile=profile)
    assert len(runs_of(jobs, "train")) == 8
    assert all(run.startswith("demo_") for run in runs_of(jobs, "train"))


def test_targets_of_three_studies_in_one_call(shipped: Project) -> None:
    """A study must not be a mode of the whole call."""
    targets = ("results/table3.csv", "results/demo/table3.md", "results/demo/table3.html", "results/small/table3.tex")
    jobs = shipped.plan(*targets)
    assert runs_of(jobs, "train") == {"dip_xl_32_512", "demo_dip_p16_large", "small_dip_p16_large"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/runs/demo_dip/metrics.json", "run 'demo_dip' belongs to study 'demo'"),
        ("results/small/runs/demo_dip/model.safetensors", "its results are in results/demo/runs/demo_dip"),
        ("results/demo/runs/demo_hibryd/metrics.json", "there is no such run; did you mean 'demo_hybrid'?"),
        ("results/demo/runs/demo_hibryd/model.safetensors", "runs.demo_hibryd: there is no such run"),
        ("results/dmeo/table2.csv", "no study 'dmeo'; did you mean 'demo'?"),
        ("results/dmeo/runs/demo_dip/metrics.json", "no study 'dmeo'"),
        ("results/demo/table2.xlsx", "nothing makes this file; did you mean 'results/demo/table2.tex'?"),
        ("results/demo/runs/demo_dip/metric.json", "did you mean 'results/demo/runs/demo_dip/metrics.json'?"),
        ("data/photos33/manifest.json", "nothing makes this file; did you mean 'data/photos32/manifest.json'?"),
        ("results/demo/table4.csv", "no table or figure 'table4' of study 'demo'"),
    ],
)
def test_a_target_that_cannot_be_is_explained(shipped: Project, target: str, message: str) -> None:
    """Snakemake's own "No rule to produce" does not say what to mend."""
    result = shipped.dry_run(target)
    assert result.returncode == 1
    line = next((line for line in result.stdout.splitlines() if message in line), None)
    assert line is not None, result.stdout
    assert "Exception" not in result.stdout


def test_a_folder_that_cannot_be_written_is_explained(project: Project) -> None:
    """Snakemake's own traceback fills a screen."""
    shutil.rmtree(project.folder / ".snakemake", ignore_errors=True)
    (project.folder / ".snakemake").touch()
    result = project.snakemake("--dry-run")
    assert result.returncode == 1
    assert "File exists: '.snakemake'" in result.stdout
    assert "Traceback" not in result.stdout


def test_an_unknown_study_is_explained(shipped: Project) -> None:
    """`--config study=` takes only a study that stands in params.yaml."""
    result = shipped.snakemake("--dry-run", "--config", "study=nowhere")
    assert result.returncode == 1
    assert "params.yaml: study: there is no study 'nowhere'" in result.stdout


@pytest.mark.parametrize("options", [("code_version=9",), ("study=demo", "training={tiny: {epochs: 3}}")])
def test_only_the_study_is_chosen_on_the_command_line(shipped: Project, options: tuple[str, ...]) -> None:
    """Jobs that read params.yaml themselves would be done with other parameters than they were planned with."""
    result = shipped.dry_run("--config", *options)
    assert result.returncode == 1
    key = options[-1].partition("=")[0]
    assert f"--config {key}: only `study` can be set there, because every job reads params.yaml" in result.stdout
    assert "or add a run with `dip ablation`" in result.stdout


def test_missing_imagenet_says_which_setting_to_fill_in(project: Project) -> None:
    """Planning works without the images; running names the key."""
    (project.folder / "params.yaml").write_text((REPOSITORY / "params.yaml").read_text())
    result = project.snakemake("data/imagenet256/manifest.json", profile="slurm")
    assert result.returncode == 1
    assert "datasets.imagenet256.source" in result.stdout
    assert not (project.folder / "data/imagenet256/manifest.json").exists()


def start_from(project: Project, path: str) -> None:
    project.edit("training: {milestones: [1]}", f"training: {{milestones: [1], init_from: {path}}}")


def test_weights_to_start_from_are_trained_first(project: Project) -> None:
    """A fresh head on a trained backbone is one line in params.yaml: the backbone's training must be planned too."""
    target = "results/demo/runs/dip/model.safetensors"
    assert runs_of(project.plan(target), "train") == {"dip"}
    start_from(project, "results/demo/runs/dit/model.safetensors")
    assert runs_of(project.plan(target), "train") == {"dit", "dip"}


def test_changed_weights_to_start_from_train_again(finished: Project) -> None:
    """Other weights are another result; a table over the old one would be stale."""
    target, weights = "results/demo/runs/dip/model.safetensors", finished.folder / "dit.safetensors"
    weights.write_bytes(finished.content("results/demo/runs/dit/model.safetensors"))
    start_from(finished, "dit.safetensors")
    assert finished.plan(target) == {"train dip"}
    finished.make(target)
    assert finished.plan(target) == set()
    weights.write_bytes(b"other weights")
    assert finished.plan(target) == {"train dip"}


def test_missing_weights_to_start_from(finished: Project) -> None:
    """A missing file or an unset variable is named before anything runs: a finished training would be removed."""
    target = "results/demo/runs/dip/model.safetensors"
    start_from(finished, "/absent/dit.pt")
    message = "params.yaml: runs.dip.training.init_from: there is no file '/absent/dit.pt'"
    result = finished.dry_run(target)
    assert result.returncode == 1
    assert message in result.stdout
    finished.edit("/absent/dit.pt", "$DIP_TEST_UNSET/dit.pt")
    for result in (finished.dry_run(target), finished.command("dip", "train", "dip")):
        assert result.returncode == 1
        assert "runs.dip.training.init_from is '$DIP_TEST_UNSET/dit.pt'" in result.stdout
        assert "the environment variable DIP_TEST_UNSET is not set" in result.stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("box_filter: 4", "box_filtre: 4", "params.yaml: datasets.photos16.box_filtre: unknown key"),
        ("num_samples: 20", "num_samples: many", "params.yaml: evaluation.photos16.num_samples: "),
        ("milestones: [1]", "milestones: [9]", "params.yaml: runs.dip.training.milestones: 9 is not before"),
        ("patch_size: 8,", "patch_size: 7,", "params.yaml: models.dit.patch_size: 7 does not divide"),
        ("epoch: 1}", "epoch: 5}", "params.yaml: runs.dip_ep1.checkpoint.epoch: 5 is not kept"),
        ("Scaling Up DiT: [dit]", "Scaling Up DiT: [dti]", "params.yaml: tables.table2.demo: there is no run 'dti'"),
        ("study: demo\ncode", "study: [demo\ncode", "params.yaml: not valid YAML"),
    ],
)
def test_mistakes_have_one_message(project: Project, old: str, new: str, message: str) -> None:
    """Snakemake and `dip` must refuse the same file in the same words, with the key's path, before anything runs."""
    project.edit(old, new)
    by_dip, by_snakemake = project.dip("train", "dit"), project.dry_run()
    assert by_dip.returncode == 1
    assert by_snakemake.returncode == 1
    said = by_dip.stdout.removeprefix("dip train: ").strip()
    assert said.startswith(message)
    assert "Traceback" not in said
    assert said in by_snakemake.stdout
