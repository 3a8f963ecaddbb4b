"""All jobs of params.yaml."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from dip.data.packaged import copy_of
from dip.paths import (
    RunFolder,
    Store,
    experiment_data,
    feature_network,
    given_path,
    photograph_copy,
    provenance,
    reference,
    study_folder,
)
from dip.pipeline.job import Files, Job
from dip.pipeline.resolved import Resolved, photographs_of
from dip.reporting.published import PAPER_TABLES
from dip.schema import (
    Comparison,
    DatasetReference,
    EvaluationSpec,
    Figure,
    Gallery,
    HeldOutReference,
    MilestoneSpec,
    Overfit,
    Params,
    PhotoExtractor,
    Photographs,
    Run,
    SamplingSpec,
    SolverSpec,
    Table,
    TrainingSpec,
)
from dip.schema.base import canonical_json

RULES_OF_DATA = ("photograph", "prepare", "feature_network", "reference")
RULES_OF_RUNS = ("train", "milestone", "sample", "latency", "evaluate")
RULES_OF_REPORTS = ("table", "experiment", "figure")


class Pipeline:
    """The jobs of params.yaml, each made when it is asked for.

    Args:
        params: All of params.yaml.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self._find = functools.cache(self._make)
        self.resolved = Resolved(params)

    def find(self, rule: str, name: str, study: str | None = None) -> Job:
        """A job.

        Args:
            rule: Name of the rule.
            name: What it is applied to.
            study: Of a table or figure.

        Raises:
            KeyError: params.yaml has no such entry.
        """
        return self._find(rule, name, study if rule in RULES_OF_REPORTS else None)

    def maker(self, path: Path) -> Job | None:
        """The job that writes a file, if any does."""
        return self._makers.get(path)

    def jobs(self, study: str) -> list[Job]:
        """All jobs of a study's tables, figures and sample grids in an order in which they can be done.

        Figures that are made on request are left out.
        """
        return self.with_upstream(self.targets(study))

    def targets(self, study: str) -> list[Job]:
        """The jobs at the end of a study: tables, figures and samples."""
        tables, figures = self.tables(study), self.figures(study, on_request=False)
        runs = dict.fromkeys(run for entry in (*tables.values(), *figures.values()) for run in entry.runs)
        return [
            *(self.find("table", name, study) for name in tables),
            *(self.find("figure", name, study) for name in figures),
            *(self.find("sample", run) for run in runs),
        ]

    def with_upstream(self, jobs: Iterable[Job]) -> list[Job]:
        """Jobs and all that they need, each after what it needs."""
        ordered: dict[str, Job] = {}

        def add(job: Job) -> None:
            if str(job.provenance) not in ordered:
                for needed in self.upstream(job):
                    add(needed)
                ordered[str(job.provenance)] = job

        for job in jobs:
            add(job)
        return list(ordered.values())

    def upstream(self, job: Job) -> list[Job]:
        """The jobs that write what a job reads."""
        makers = (self.maker(path) for path in job.input_files)
        return list({str(maker.provenance): maker for maker in makers if maker is not None}.values())

    def tables(self, study: str) -> dict[str, Table]:
        """Tables of a study by name."""
        return {name: by_study[study] for name, by_study in self.params.tables.items() if study in by_study}

    def figures(self, study: str, *, on_request: bool = True) -> dict[str, Figure]:
        """Figures of a study by name, also those that are made on request unless it is said otherwise."""
        figures = {name: by_study[study] for name, by_study in self.params.figures.items() if study in by_study}
        return {name: figure for name, figure in figures.items() if on_request or not figure.on_request}

    @functools.cached_property
    def _makers(self) -> dict[Path, Job]:
        return {path: job for job in self.all_jobs() for path in job.outputs.values()}

    def all_jobs(self) -> Iterator[Job]:
        """Every job of params.yaml, of all studies."""
        params = self.params
        yield from (self.find("photograph", copy_of(name).name) for name in photographs_of(params))
        yield from (self.find("prepare", name) for name in params.datasets)
        for name, evaluation in params.evaluation.items():
            if isinstance(evaluation.extractor, PhotoExtractor):
                yield self.find("feature_network", name)
            yield self.find("reference", name)
        for name, run in params.runs.items():
            if run.checkpoint is None:
                yield self.find("train", name)
            elif run.is_milestone:
                yield self.find("milestone", name)
            yield from (self.find(rule, name) for rule in ("sample", "latency", "evaluate"))
        for study in params.studies:
            yield from (self.find("table", name, study) for name in self.tables(study))
            for name, figure in self.figures(study).items():
                if not isinstance(figure, Comparison):
                    yield self.find("experiment", name, study)
                yield self.find("figure", name, study)

    def _make(self, rule: str, name: str, study: str | None) -> Job:
        make: Callable[..., Job] = getattr(self, f"_{rule}")
        return make(name) if study is None else make(name, study)

    def _job(
        self,
        rule: str,
        name: str,
        inputs: Files,
        outputs: dict[str, Path],
        keys: Iterable[str],
        *,
        spec: str | None = None,
        stem: Path | None = None,
        **more: Any,
    ) -> Job:
        parameters = {key: self.resolved.value(key) for key in keys}
        stem = stem or next(iter(outputs.values())).with_suffix("")
        outputs = {**outputs, "provenance": provenance(stem)}
        return Job(rule, name, inputs, outputs, parameters, spec or canonical_json(parameters), **more)

    # Data: photographs, datasets, feature networks, references.

    def _photograph(self, name: str) -> Job:
        copy = photograph_copy(name)
        return self._job("photograph", name, {}, {"image": copy}, [f"photographs.{copy.stem}"], stem=copy)

    def _prepare(self, name: str) -> Job:
        store, dataset = Store.of(name), self.params.datasets[name]
        photographs = dataset.photographs if isinstance(dataset, Photographs) else ()
        inputs = {"photographs": tuple(map(copy_of, photographs))}
        keys = ["code_version", f"datasets.{name}"]
        return self._job("prepare", name, inputs, {"manifest": store.manifest}, keys, folder=store.folder)

    def _feature_network(self, name: str) -> Job:
        extractor = self.params.evaluation[name].extractor
        assert isinstance(extractor, PhotoExtractor)
        inputs: Files = {"manifest": (Store.of(extractor.dataset).manifest,)}
        keys = ["code_version", f"evaluation.{name}.extractor", f"datasets.{extractor.dataset}"]
        return self._job("feature_network", name, inputs, {"network": feature_network(name)}, keys)

    def _reference(self, name: str) -> Job:
        settings = self.params.evaluation[name].reference
        keys = ["code_version", *(f"evaluation.{name}.{part}" for part in ("extractor", "image_size", "reference"))]
        inputs: Files = {"extractor": self._extractor(name), "manifest": (), "photographs": ()}
        parts = (self.params.evaluation[name].extractor, settings)
        datasets = sorted({part.dataset for part in parts if hasattr(part, "dataset")})
        if isinstance(settings, DatasetReference):
            inputs["manifest"] = (Store.of(settings.dataset).manifest,)
        if isinstance(settings, HeldOutReference):
            dataset = self.params.datasets[settings.dataset]
            assert isinstance(dataset, Photographs)  # dip.checks
            inputs["photographs"] = tuple(map(copy_of, dataset.photographs))
        keys += [f"datasets.{dataset}" for dataset in datasets]
        return self._job("reference", name, inputs, {"reference": reference(name)}, keys)

    def _extractor(self, evaluation: str) -> tuple[Path, ...]:
        """The evaluator's own feature network, if it has one."""
        trained = isinstance(self.params.evaluation[evaluation].extractor, PhotoExtractor)
        return (feature_network(evaluation),) if trained else ()

    # Runs: training, weights, samples, latency, metrics.

    def _of_run(self, rule: str, name: str, inputs: Files, outputs: dict[str, Path], part: type[TrainingSpec]) -> Job:
        spec = self.params.runs[name].part(part).canonical()
        return self._job(rule, name, inputs, outputs, keys_of_run(name, part), spec=spec)

    def _train(self, name: str) -> Job:
        run, folder = self.params.runs[name], self._folder(name)
        alignment, keys = run.training.alignment, f"runs.{name}.training"
        encoder = alignment.encoder_path if alignment is not None else None
        inputs: Files = {
            "manifest": (Store.of(run.dataset_name).manifest,),
            "init_from": given_file(run.training.init_from, f"{keys}.init_from"),
            "encoder": given_file(encoder, f"{keys}.alignment.encoder_path"),
        }
        outputs = {
            "model": folder.model,
            "params": folder.params,
            "log": folder.training_log,
            "curves": folder.curves,
        }
        return self._of_run("train", name, inputs, outputs, TrainingSpec)

    def _milestone(self, name: str) -> Job:
        folder = self._folder(name)
        inputs: Files = {"model": (self._folder(self.params.runs[name].training_run).model,)}
        return self._of_run("milestone", name, inputs, {"model": folder.model}, MilestoneSpec)

    def _sample(self, name: str) -> Job:
        folder = self._folder(name)
        outputs = {"samples": folder.samples, "settings": folder.sampling, "grid": folder.grid}
        return self._of_run("sample", name, {"weights": (self._weights(name),)}, outputs, SamplingSpec)

    def _latency(self, name: str) -> Job:
        outputs = {"latency": self._folder(name).latency}
        return self._of_run("latency", name, {"weights": (self._weights(name),)}, outputs, SolverSpec)

    def _evaluate(self, name: str) -> Job:
        folder, evaluation = self._folder(name), self.params.runs[name].evaluation_name
        inputs = {
            "samples": (folder.samples,),
            "reference": (reference(evaluation),),
            "extractor": self._extractor(evaluation),
        }
        outputs = {"metrics": folder.metrics, "scores": folder.scores}
        return self._of_run("evaluate", name, inputs, outputs, EvaluationSpec)

    def _folder(self, name: str) -> RunFolder:
        return RunFolder.of(self.params.runs[name].study, name)

    def _weights(self, name: str) -> Path:
        return self._folder(name).weights(self.params.runs[name])

    # Reports: tables, experiments, figures.

    def _table(self, name: str, study: str) -> Job:
        table = self.params.tables[name][study]
        files: list[Path] = []
        for run in (self.params.runs[run] for run in table.runs):
            folder, trained = self._folder(run.name), self._folder(run.training_run)
            files += [folder.metrics, folder.latency, folder.sampling, trained.params, trained.training_log]
        keys = ["code_version", f"tables.{name}.{study}", *(key for run in table.runs for key in keys_of_run(run, Run))]
        if table.published and table.layout in PAPER_TABLES:
            keys.append(f"published.{table.layout}")
        stem = study_folder(study) / name
        endings = {"csv": "csv", "markdown": "md", "html": "html", "latex": "tex"}
        outputs = {kind: stem.with_suffix(f".{ending}") for kind, ending in endings.items()}
        return self._job("table", name, {"runs": tuple(dict.fromkeys(files))}, outputs, keys)

    def _experiment(self, name: str, study: str) -> Job:
        figure = self.params.figures[name][study]
        inputs: Files = {"weights": (), "manifest": (), "photographs": ()}
        if isinstance(figure, Gallery):
            run = self.params.runs[figure.run]
            inputs["weights"], inputs["manifest"] = (self._weights(run.name),), (Store.of(run.dataset_name).manifest,)
        if isinstance(figure, Overfit):
            inputs["photographs"] = (copy_of(figure.photograph),)
        # What is written, enlarged and put side by side changes no number.
        fields = [field for field in self.resolved.value(f"figures.{name}.{study}") if field not in _DRAWN]
        keys = ["code_version", *(f"figures.{name}.{study}.{field}" for field in fields)]
        keys += [key for run in figure.runs for key in keys_of_run(run, SolverSpec)]
        data = experiment_data(study, name)
        stem = data.with_name(f"{name}.experiment")
        return self._job("experiment", name, inputs, {"data": data}, dict.fromkeys(keys), stem=stem)

    def _figure(self, name: str, study: str) -> Job:
        figure = self.params.figures[name][study]
        keys = ["code_version", f"figures.{name}.{study}"]
        if isinstance(figure, Comparison):
            inputs = {"shown": tuple(self._compared(figure))}
            keys += [f"studies.{study}.title"]
            keys += [key for run in figure.runs for key in keys_of_run(run, EvaluationSpec)]
        else:
            inputs = {"shown": (experiment_data(study, name),)}
            keys += [key for run in figure.runs for key in keys_of_run(run, SolverSpec)]
        stem = study_folder(study) / name
        outputs = {"pdf": stem.with_suffix(".pdf"), "png": stem.with_suffix(".png")}
        return self._job("figure", name, inputs, outputs, dict.fromkeys(keys))

    def _compared(self, figure: Comparison) -> Iterator[Path]:
        timed = {
            run
            for panel in figure.panels
            if panel.y == "latency_seconds"
            for runs in panel.series.values()
            for run in runs
        }
        for run in figure.runs:
            yield self._folder(run).metrics
            if run in timed:
                yield self._folder(run).latency


_DRAWN = ("caption", "details", "columns")  # of a figure: what its experiment does not depend on


def keys_of_run(run: str, part: type[TrainingSpec]) -> list[str]:
    """Paths of the parameters of a run that a stage depends on."""
    own = [field for field in part.model_fields if field not in ("code_version", "name")]
    return ["code_version", *(f"runs.{run}.{field}" for field in own)]


def given_file(text: str | None, key: str) -> tuple[Path, ...]:
    """A file of weights that params.yaml gives, if it does; none where a variable is not set, which is named later.

    Args:
        text: As it stands in params.yaml.
        key: Its key.
    """
    try:
        return () if text is None else (given_path(text, key, "a file of weights"),)
    except ValueError:
        return ()
