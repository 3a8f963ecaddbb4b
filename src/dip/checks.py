"""Combinations of parameters that cannot work, each of whose values is fine by itself."""

from __future__ import annotations

from collections.abc import Iterator

from dip.schema import FileReference, HeldOutReference, Model, Params, PhotoExtractor, Photographs, Run

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
    low, high = run.sampling.cfg_interval
    if low >= high:
        yield ("sampling", "cfg_interval"), f"[{low}, {high}] is empty; expected [low, high] with low < high"
    if run.evaluation.image_size != size:
        yield (
            ("evaluation",),
            f"'{run.evaluation_name}' is for images of {run.evaluation.image_size} pixels, the run's have {size}",
        )


def _model_mistakes(model: Model) -> Iterator[Mistake]:
    head, width = model.head, model.hidden_size
    if width % model.num_heads:
        yield ("model", "hidden_size"), f"{width} is not divisible by num_heads = {model.num_heads}"
    elif width // model.num_heads % 4:
        yield (
            ("model", "num_heads"),
            f"hidden_size / num_heads = {width // model.num_heads} is not divisible by 4, as 2-D RoPE needs",
        )
    if head.name == "unet" and model.patch_size % 2**head.depth:
        yield (
            ("model", "head", "depth"),
            f"{head.depth} stages halve the patch to 1 / {2**head.depth}, which patch_size = {model.patch_size} "
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
    for run in params.runs.values():
        if run.study not in params.studies:
            yield (
                ("runs", run.name, "study"),
                f"there is no study '{run.study}'; there are {', '.join(params.studies)}",
            )
        yield from _checkpoint_mistakes(run, params)
    for name, evaluation in params.evaluation.items():
        yield from _evaluation_mistakes(name, evaluation.extractor, evaluation.reference, params)
    for section, entries in (("tables", params.tables), ("figures", params.figures)):
        for name, by_study in entries.items():
            for study, entry in by_study.items():
                yield from _entry_mistakes((section, name, study), study, entry.runs, params)


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


def _evaluation_mistakes(
    name: str,
    extractor: object,
    reference: FileReference | HeldOutReference,
    params: Params,
) -> Iterator[Mistake]:
    where: Keys = ("evaluation", name)
    size = params.evaluation[name].image_size
    for key, part in (("extractor", extractor), ("reference", reference)):
        if not isinstance(part, PhotoExtractor | HeldOutReference):
            continue
        dataset = params.datasets.get(part.dataset)
        if dataset is None:
            yield (*where, key, "dataset"), f"there is no dataset '{part.dataset}'"
        elif not isinstance(dataset, Photographs):
            yield (*where, key, "dataset"), f"'{part.dataset}' is not a dataset of photographs"
        elif dataset.image_size != size:
            yield (
                (*where, key, "dataset"),
                f"'{part.dataset}' has images of {dataset.image_size} pixels, not {size}",
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
    if where[0] == "tables" and len(set(runs)) < len(runs):
        twice = sorted({run for run in runs if runs.count(run) > 1})
        yield where, f"run '{twice[0]}' stands in it twice"
