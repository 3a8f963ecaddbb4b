"""Combinations of parameters that cannot work, each of whose values is fine by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dip.data.packaged import NAMES
from dip.data.synsets import same_class
from dip.paths import (
    FEATURES,
    PAPER,
    PHOTOGRAPHS,
    REFERENCES,
    REPORT,
    RESULTS,
    RUNS,
    RunFolder,
    Store,
    study_folder,
)
from dip.reporting.published import PAPER_TABLES
from dip.schema import (
    Comparison,
    DatasetReference,
    Gallery,
    HeldOutReference,
    Manifold,
    Model,
    Overfit,
    Params,
    PhotoExtractor,
    Photographs,
    Run,
    Table,
)

Keys = tuple[str | int, ...]
Mistake = tuple[Keys, str]  # the path of the key and what is wrong with it

# The encoder of the alignment sees images of 224 x 224 in patches of 14 x 14.
ALIGNMENT_GRID = 224 // 14


def run_mistakes(run: Run) -> Iterator[Mistake]:
    """What is wrong with a run by itself; keys are relative to the run."""
    size, patch = run.dataset.image_size, run.model.patch_size
    if size % patch:
        yield ("model", "patch_size"), f"{patch} does not divide the images of {size} x {size} pixels"
    yield from _model_mistakes(run.model)
    training = run.training
    if training.batch_size > run.dataset.num_images:
        yield (
            ("training", "batch_size"),
            f"{training.batch_size} is more than the {run.dataset.num_images} images of {run.dataset_name}",
        )
    for milestone in training.milestones:
        if milestone >= training.epochs:
            yield (
                ("training", "milestones"),
                f"{milestone} is not before the last epoch, {training.epochs}; the last one is always kept",
            )
    followed = (training.ema_decay, *training.ema_decays)
    for decay in training.ema_decays:
        if followed.count(decay) > 1:
            yield (
                ("training", "ema_decays"),
                f"{decay} stands twice; name every decay once, and not that of ema_decay, {training.ema_decay}, which "
                "is followed anyway",
            )
    if training.alignment is not None:
        if training.alignment.block > run.model.depth:
            yield (
                ("training", "alignment", "block"),
                f"{training.alignment.block} is more than the {run.model.depth} blocks of the backbone",
            )
        if size // patch != ALIGNMENT_GRID:
            yield (
                ("training", "alignment"),
                f"the encoder has {ALIGNMENT_GRID} x {ALIGNMENT_GRID} patches, the model {size // patch} x "
                f"{size // patch}; they must be equal (image size / patch size = {ALIGNMENT_GRID})",
            )
    yield from _interval_mistakes(("sampling", "cfg_interval"), run.sampling.cfg_interval)
    if run.sampling.cfg_scale > 1 and training.label_dropout == 0:
        yield (
            ("sampling", "cfg_scale"),
            f"guidance of {run.sampling.cfg_scale:g} needs a model that has seen images without labels, and "
            "training.label_dropout is 0",
        )
    if run.evaluation.image_size != size:
        yield (
            ("evaluation",),
            f"'{run.evaluation_name}' is for images of {run.evaluation.image_size} pixels, the run's have {size}",
        )


def _interval_mistakes(where: Keys, interval: tuple[float, float]) -> Iterator[Mistake]:
    low, high = interval
    if low >= high:
        yield where, f"[{low}, {high}] is empty; expected [low, high] with low < high"


def _model_mistakes(model: Model) -> Iterator[Mistake]:
    head, width = model.head, model.hidden_size
    if width % model.num_heads:
        yield ("model", "hidden_size"), f"{width} is not divisible by num_heads = {model.num_heads}"
    elif width // model.num_heads % 4:
        yield (
            ("model", "num_heads"),
            f"hidden_size / num_heads = {width // model.num_heads} is not divisible by 4, as 2-D RoPE needs",
        )
    if head.name == "unet" and model.patch_size % (1 << head.depth):
        yield (
            ("model", "head", "depth"),
            f"{head.depth} stages halve the patch to 1 / 2^{head.depth}, which patch_size = {model.patch_size} "
            "is not divisible by",
        )
    if head.name == "attention" and head.width % head.num_heads:
        yield ("model", "head", "width"), f"{head.width} is not divisible by num_heads = {head.num_heads}"
    elif head.name == "attention" and head.width // head.num_heads % 4:
        yield ("model", "head", "num_heads"), f"{head.width} / {head.num_heads} is not divisible by 4, as RoPE needs"
    if head.name == "none" and model.placement != "post_hoc":
        yield ("model", "placement"), f"'{model.placement}' needs a head, and the model has none"
    if model.placement == "post_hoc" and model.intermediate_block is not None:
        yield ("model", "intermediate_block"), "has a meaning only with placement intermediate or hybrid"
    if model.intermediate_block is not None and model.intermediate_block >= model.depth:
        yield (
            ("model", "intermediate_block"),
            f"{model.intermediate_block} is not before the last of the {model.depth} blocks",
        )
    if model.placement != "post_hoc" and model.depth < 2:
        yield ("model", "depth"), f"placement '{model.placement}' needs two blocks or more"
    if model.head_input == "image" and head.name != "unet":
        yield ("model", "head_input"), "only the U-Net head takes the whole image"


def section_mistakes(params: Params) -> Iterator[Mistake]:
    """What is wrong between the entries of the file."""
    if params.study not in params.studies:
        yield ("study",), f"there is no study '{params.study}'; there are {', '.join(params.studies)}"
    if RUNS in params.studies:
        yield ("studies", RUNS), f"{study_folder(RUNS)} holds the runs of '{PAPER}'; give the study another name"
    for run in params.runs.values():
        if run.study not in params.studies:
            yield (
                ("runs", run.name, "study"),
                f"there is no study '{run.study}'; there are {', '.join(params.studies)}",
            )
        yield from _checkpoint_mistakes(run, params)
        yield from _init_mistakes(run, params)
    for name, dataset in params.datasets.items():
        if (folder := Store.of(name).folder) in (PHOTOGRAPHS, FEATURES, REFERENCES):
            yield ("datasets", name), f"{folder} holds the {name} of all datasets; give the dataset another name"
        if isinstance(dataset, Photographs):
            yield from _photograph_mistakes(("datasets", name, "photographs"), dataset.photographs)
    for name in params.evaluation:
        yield from _evaluation_mistakes(name, params)
    for section, entries in (("tables", params.tables), ("figures", params.figures)):
        for name, by_study in entries.items():
            if name == REPORT:
                yield (section, name), "Snakemake's report of a study has this name; give it another"
            for study, entry in by_study.items():
                yield from _entry_mistakes((section, name, study), study, entry.runs, params)
                if section == "figures" and study in params.tables.get(name, {}):
                    yield (section, name, study), "a table of this study has the same name; give one of them another"
                if isinstance(entry, Table):
                    yield from _table_mistakes((section, name, study), entry)
                if isinstance(entry, Comparison):
                    yield from _comparison_mistakes((section, name, study), entry, params)
                if isinstance(entry, Overfit):
                    yield from _overfit_mistakes((section, name, study), entry, params)
                if isinstance(entry, Gallery):
                    yield from _gallery_mistakes((section, name, study), entry, params)
                if isinstance(entry, Manifold):
                    yield from _manifold_mistakes((section, name, study), entry)


def _checkpoint_mistakes(run: Run, params: Params) -> Iterator[Mistake]:
    if run.checkpoint is None:
        return
    where: Keys = ("runs", run.name, "checkpoint")
    trained = params.runs.get(run.checkpoint.run)
    if trained is None:
        yield (*where, "run"), f"there is no run '{run.checkpoint.run}'"
        return
    if trained.checkpoint is not None:
        yield (*where, "run"), f"'{trained.name}' is not trained itself; name '{trained.checkpoint.run}'"
    if trained.study != run.study:
        yield (
            (*where, "run"),
            f"'{trained.name}' belongs to study '{trained.study}', this run to '{run.study}'",
        )
    for part in ("dataset", "model", "training"):
        if getattr(trained, part) != getattr(run, part):
            yield where, f"the run's {part} differs from that of '{trained.name}', whose weights it takes"
    epoch = run.checkpoint.epoch
    kept = (*trained.training.milestones, trained.training.epochs)
    if epoch is not None and epoch not in kept:
        yield (
            (*where, "epoch"),
            f"{epoch} is not kept; '{trained.name}' keeps {', '.join(map(str, kept))} "
            f"(runs.{trained.name}.training.milestones)",
        )
    decay = run.checkpoint.ema_decay
    followed = (trained.training.ema_decay, *trained.training.ema_decays)
    if decay is not None and decay not in followed:
        yield (
            (*where, "ema_decay"),
            f"{decay} is not followed; '{trained.name}' follows {', '.join(map(str, followed))} "
            f"(runs.{trained.name}.training.ema_decays)",
        )


def _init_mistakes(run: Run, params: Params) -> Iterator[Mistake]:
    """What is wrong where a run starts from the weights of another; other files are checked by the training."""
    if run.checkpoint is not None or run.training.init_from is None:
        return
    where: Keys = ("runs", run.name, "training", "init_from")
    trained = {RunFolder.of(other.study, other.name).model: other for other in params.runs.values()}
    source, started = run, [run.name]
    while source.training.init_from is not None:
        path = Path(source.training.init_from)
        if path not in trained:
            if path.parts[:1] == RESULTS.parts and RUNS in path.parts and source is run:
                yield where, f"no run has its weights in '{path}' (results/[<study>/]runs/<run>/model.safetensors)"
            break
        source = trained[path]
        if source.checkpoint is not None:
            source = params.runs.get(source.checkpoint.run, source)
        if source.name in started:
            yield where, f"the weights would wait for themselves: {' <- '.join([*started, source.name])}"
            return
        started.append(source.name)
    if len(started) > 1:
        first = params.runs[started[1]]
        for key in ("patch_size", "hidden_size", "depth", "num_heads", "qk_norm"):
            theirs, ours = getattr(first.model, key), getattr(run.model, key)
            if theirs != ours:
                yield where, f"the backbone of '{first.name}' has {key} {theirs}, this run's {ours}"
        if first.dataset.num_classes != run.dataset.num_classes:
            yield where, f"'{first.name}' has {first.dataset.num_classes} classes, this run {run.dataset.num_classes}"


def _evaluation_mistakes(name: str, params: Params) -> Iterator[Mistake]:
    where: Keys = ("evaluation", name)
    evaluation = params.evaluation[name]
    size, extractor, reference = evaluation.image_size, evaluation.extractor, evaluation.reference
    counts = [evaluation.num_samples, getattr(reference, "num_images", evaluation.num_samples)]
    if isinstance(reference, DatasetReference) and reference.dataset in params.datasets:
        counts.append(params.datasets[reference.dataset].num_images)
    fewest = min(counts)
    if evaluation.neighbours >= fewest:
        yield (
            (*where, "neighbours"),
            f"{evaluation.neighbours} is not below {fewest}, the number of samples or of reference images",
        )
    for key, part in (("extractor", extractor), ("reference", reference)):
        if not isinstance(part, PhotoExtractor | HeldOutReference | DatasetReference):
            continue
        dataset = params.datasets.get(part.dataset)
        if dataset is None:
            yield (*where, key, "dataset"), f"there is no dataset '{part.dataset}'"
        elif not isinstance(dataset, Photographs) and not isinstance(part, DatasetReference):
            yield (*where, key, "dataset"), f"'{part.dataset}' is not a dataset of photographs"
        elif dataset.image_size != size:
            yield (
                (*where, key, "dataset"),
                f"'{part.dataset}' has images of {dataset.image_size} pixels, not {size}",
            )
        elif isinstance(part, PhotoExtractor) and (size < 16 or size % 4):
            yield (
                (*where, "image_size"),
                f"the photo network takes images whose size is a multiple of 4 and 16 or more, not {size}",
            )


def _entry_mistakes(where: Keys, study: str, runs: tuple[str, ...], params: Params) -> Iterator[Mistake]:
    if study not in params.studies:
        yield where, f"there is no study '{study}'; there are {', '.join(params.studies)}"
        return
    for run in runs:
        if run not in params.runs:
            yield where, f"there is no run '{run}'"
        elif params.runs[run].study != study:
            yield where, f"run '{run}' belongs to study '{params.runs[run].study}'"


def _table_mistakes(where: Keys, table: Table) -> Iterator[Mistake]:
    twice = sorted({run for run in table.runs if table.runs.count(run) > 1})
    if twice:
        yield where, f"run '{twice[0]}' stands in it twice"
    if not table.runs and not (table.published and table.layout in PAPER_TABLES):
        yield (*where, "sections"), "there is no run, and the table has no published rows"


def _photograph_mistakes(where: Keys, photographs: tuple[str, ...]) -> Iterator[Mistake]:
    for photograph in photographs:
        if photograph not in NAMES:
            yield where, f"there is no photograph '{photograph}'; there are {', '.join(NAMES)}"
        if photographs.count(photograph) > 1:
            yield where, f"'{photograph}' stands in it twice; each is a class of its own"


def _comparison_mistakes(where: Keys, figure: Comparison, params: Params) -> Iterator[Mistake]:
    for index, panel in enumerate(figure.panels):
        for label, runs in panel.series.items():
            for place, run in enumerate(params.runs[name] for name in runs if name in params.runs):
                key: Keys = (*where, "panels", index, "series", label, place)
                head, size, patch = run.model.head, run.dataset.image_size, run.model.patch_size
                part, _, setting = panel.x.partition(".")
                if part == "head" and not hasattr(head, setting):
                    yield key, f"'{run.name}' has no {panel.x}; its head is '{head.name}'"
                if panel.y in ("seams", "period") and not 1 < patch < size:
                    yield (
                        key,
                        f"'{run.name}' has no {panel.y}: its patches of {patch} leave no grid in images of {size}",
                    )


def _overfit_mistakes(where: Keys, figure: Overfit, params: Params) -> Iterator[Mistake]:
    yield from _photograph_mistakes((*where, "photograph"), (figure.photograph,))
    side = figure.crop.size
    for label, series in figure.series.items():
        run = params.runs.get(series.run)
        if run is None:
            continue
        patch, width, rank = run.model.patch_size, run.model.hidden_size, 3 * run.model.patch_size**2
        key: Keys = (*where, "series", label, "run")
        if side % patch:
            yield key, f"patch_size {patch} of '{run.name}' does not divide the crop of {side} x {side} pixels"
        if width < rank:
            yield (
                key,
                f"hidden_size {width} of '{run.name}' is below 3 x patch_size^2 = {rank}: its tokens cannot carry the "
                "noise of a patch, which would be taken for a loss of detail",
            )
    for index, detail in enumerate(figure.details):
        if max(detail.top, detail.left) + detail.size > side:
            yield (*where, "details", index), f"reaches outside the crop of {side} x {side} pixels"


def _gallery_mistakes(where: Keys, figure: Gallery, params: Params) -> Iterator[Mistake]:
    yield from _interval_mistakes((*where, "cfg_interval"), figure.cfg_interval)
    run = params.runs.get(figure.run)
    if run is None:
        return
    for number, name in figure.classes.items():
        if number >= run.dataset.num_classes:
            yield (*where, "classes", number), f"the dataset of '{run.name}' has {run.dataset.num_classes} classes"
        elif isinstance(run.dataset, Photographs) and not same_class(name, known := run.dataset.photographs[number]):
            yield (*where, "classes", number), f"it is '{known}' in the dataset of '{run.name}', not '{name}'"
    if figure.cfg_scale > 1 and run.training.label_dropout == 0:
        yield (*where, "cfg_scale"), f"'{run.name}' has seen no images without labels (training.label_dropout is 0)"


def _manifold_mistakes(where: Keys, figure: Manifold) -> Iterator[Mistake]:
    if figure.hidden_size % (4 * figure.num_heads):
        yield (
            (*where, "hidden_size"),
            f"{figure.hidden_size} is not divisible by 4 x num_heads = {4 * figure.num_heads}, as 2-D RoPE needs",
        )
