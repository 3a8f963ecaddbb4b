"""Combinations of parameters that cannot work, each of whose values is fine by itself: runs, datasets, evaluators."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dip.data.packaged import NAMES
from dip.nearest import nearest
from dip.paths import (
    FEATURES,
    PAPER,
    PHOTOGRAPHS,
    REFERENCES,
    RESULTS,
    RUNS,
    RunFolder,
    Store,
    study_folder,
)
from dip.schema import (
    DatasetReference,
    HeldOutReference,
    Model,
    Params,
    PhotoExtractor,
    Photographs,
    Run,
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
    yield from interval_mistakes(("sampling", "cfg_interval"), run.sampling.cfg_interval)
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


def interval_mistakes(where: Keys, interval: tuple[float, float]) -> Iterator[Mistake]:
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
    """What is wrong between runs, datasets and evaluators."""
    if params.study not in params.studies:
        yield ("study",), f"there is no study '{params.study}'{nearest(params.study, params.studies)}"
    if RUNS in params.studies:
        yield ("studies", RUNS), f"{study_folder(RUNS)} holds the runs of '{PAPER}'; give the study another name"
    for run in params.runs.values():
        if run.study not in params.studies:
            yield ("runs", run.name, "study"), f"there is no study '{run.study}'{nearest(run.study, params.studies)}"
        yield from _checkpoint_mistakes(run, params)
        yield from _init_mistakes(run, params)
    for name, dataset in params.datasets.items():
        if (folder := Store.of(name).folder) in (PHOTOGRAPHS, FEATURES, REFERENCES):
            yield ("datasets", name), f"{folder} holds the {name} of all datasets; give the dataset another name"
        if isinstance(dataset, Photographs):
            yield from photograph_mistakes(("datasets", name, "photographs"), dataset.photographs)
    for name in params.evaluation:
        yield from _evaluation_mistakes(name, params)


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


def photograph_mistakes(where: Keys, photographs: tuple[str, ...]) -> Iterator[Mistake]:
    for photograph in photographs:
        if photograph not in NAMES:
            yield where, f"there is no photograph '{photograph}'{nearest(photograph, NAMES)}"
        if photographs.count(photograph) > 1:
            yield where, f"'{photograph}' stands in it twice; each is a class of its own"
