"""A folder in which the workflow runs, with parameters that take a minute instead of twenty."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from dip.reporting.published import PUBLISHED

REPOSITORY = Path(__file__).parent.parent
TINY = Path(__file__).parent / "tiny.yaml"
DEMO = "workflow/profiles/demo"


@dataclass(frozen=True)
class Project:
    """A copy of the repository's workflow with its own params.yaml, data and results."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, params: Path) -> Project:
        """A project without data and results."""
        folder.mkdir(parents=True)
        for name in ("Snakefile", "workflow", "slurm"):
            (folder / name).symlink_to(REPOSITORY / name)
        shutil.copyfile(params, folder / "params.yaml")
        return cls(folder)

    def copy(self, folder: Path) -> Project:
        """The same with all that was made in it; times of files and Snakemake's records included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"}

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project, with stderr in its stdout."""
        return subprocess.run(
            arguments,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )

    def snakemake(self, *arguments: str, profile: str = DEMO) -> subprocess.CompletedProcess[str]:
        return self.command("snakemake", "--profile", profile, *arguments)

    def make(self, *targets: str, profile: str = DEMO) -> None:
        """Have Snakemake make targets; it must succeed."""
        result = self.snakemake(*targets, profile=profile)
        assert result.returncode == 0, result.stdout[-5000:]

    def dry_run(self, *arguments: str, profile: str = DEMO) -> subprocess.CompletedProcess[str]:
        """What `snakemake --dry-run` says, in a fork of this process, which spares Python's start and imports."""
        import snakemake.cli

        return self._fork(snakemake.cli.main, "snakemake", "--profile", profile, "--dry-run", *arguments)

    def dip(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `dip` says, in a fork as well; for stages that compute nothing."""
        from dip import cli

        return self._fork(cli.main, "dip", *arguments)

    def plan(self, *targets: str, profile: str = DEMO) -> set[str]:
        """The jobs that Snakemake would run, each as "rule name", without the rule `all`."""
        result = self.dry_run(*targets, profile=profile)
        assert result.returncode == 0, result.stdout[-5000:]
        jobs = planned_jobs(result.stdout)
        assert bool(jobs) != ("Nothing to be done" in result.stdout), result.stdout[-5000:]
        return jobs

    def _fork(self, main: Callable[[list[str]], object], *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program's function as `command` would run the program; with the sources that this process has."""
        import dip.pipeline.workflow  # what the Snakefile imports, and every call of `dip`  # noqa: F401

        with tempfile.TemporaryFile("w+") as output:
            if (child := os.fork()) == 0:
                os._exit(_run_as_program(main, command, self, output))
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            output.seek(0)
            return subprocess.CompletedProcess(command, code, output.read())

    @property
    def params(self) -> str:
        return (self.folder / "params.yaml").read_text()

    def edit(self, old: str, new: str) -> None:
        """Replace a piece of params.yaml that stands in it once."""
        assert self.params.count(old) == 1, f"{old!r} stands {self.params.count(old)} times in params.yaml"
        (self.folder / "params.yaml").write_text(self.params.replace(old, new))

    def content(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


@dataclass(frozen=True)
class Repository(Project):
    """A project that is a git repository with DVC in it, and with the package's sources of its own."""

    @classmethod
    def create(cls, folder: Path, params: Path) -> Repository:
        """A clone without data and results."""
        folder.mkdir(parents=True)
        for name in ("workflow", "src", ".dvc"):
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "tmp", "cache", "config.local")
            shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
        (folder / "slurm").symlink_to("workflow/profiles/slurm")
        for name in ("Snakefile", "dvc.yaml", ".dvcignore", ".gitignore", "requirements.lock"):
            shutil.copyfile(REPOSITORY / name, folder / name)
        shutil.copyfile(params, folder / "params.yaml")
        repository = cls(folder)
        repository.run("git", "init", "--quiet")
        repository.commit()
        return repository

    @property
    def environment(self) -> dict[str, str]:
        git = {f"GIT_{who}_{what}": "test@dip.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return {**super().environment, **git, "PYTHONPATH": str(self.folder / "src"), "DVC_NO_ANALYTICS": "1"}

    def run(self, *arguments: str) -> str:
        """Output of a command, which must succeed."""
        result = self.command(*arguments)
        assert result.returncode == 0, result.stdout[-5000:]
        return result.stdout

    def commit(self) -> None:
        """Commit all that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--allow-empty", "--message", "A test.")

    def clone(self, folder: Path) -> Repository:
        """What a person has who clones it."""
        self.run("git", "clone", "--quiet", str(self.folder), str(folder))
        return Repository(folder)

    def copy(self, folder: Path) -> Repository:
        return Repository(super().copy(folder).folder)

    @property
    def has_our_sources(self) -> bool:
        """Whether this process has the sources of the repository, which were copied."""
        return self.content(PUBLISHED) == (REPOSITORY / PUBLISHED).read_bytes()

    def dry_run(self, *arguments: str, profile: str = DEMO) -> subprocess.CompletedProcess[str]:
        if not self.has_our_sources:
            return self.snakemake("--dry-run", *arguments, profile=profile)
        return super().dry_run(*arguments, profile=profile)

    def is_clean(self) -> bool:
        """Whether `dvc status` has nothing to say."""
        return "Data and pipelines are up to date" in self.dvc("status")

    def dvc(self, *arguments: str) -> str:
        """Output of a command of DVC, in a fork of this process; for those that run no stages, which look for `dvc`."""
        import dvc.cli
        import dvc.repo

        result = self._fork(dvc.cli.main, "dvc", *arguments)
        assert result.returncode == 0, result.stdout[-5000:]
        return result.stdout


def _run_as_program(main: Callable[[list[str]], object], command: Sequence[str], project: Project, file: TextIO) -> int:
    """Call a program's function in a process that a fork has made; its exit code."""
    os.chdir(project.folder)
    os.environ.update(project.environment)
    del os.environ["OMP_NUM_THREADS"]  # with it, `dip` imports torch at its start
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file  # pytest has put others in their place, and its handlers of logging
    logging.root.handlers.clear()
    sys.argv = list(command)
    try:
        code = main(sys.argv[1:])
    except SystemExit as end:
        code = end.code
    except BaseException:
        code = traceback.format_exc()
    if isinstance(code, str):
        print(code, file=file)
    file.flush()
    return code if isinstance(code, int) else int(code is not None)


def planned_jobs(output: str) -> set[str]:
    """Every job in the output of a dry run as "rule name"; the name is that of the run, table or dataset."""
    jobs = set()
    for block in re.split(r"\n(?=(?:local)?rule \w+:\n)", output)[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)
        wildcards = re.search(r"^    wildcards: (.*)$", block, re.MULTILINE)
        if rule and wildcards:
            values = [part.split("=", 1)[1] for part in wildcards[1].split(", ")]
            jobs.add(f"{rule[1]} {values[-1]}")
    return jobs
