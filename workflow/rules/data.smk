"""Datasets, feature networks and references."""

from dip.schema import ImageFiles


def settings_of_dataset(wildcards):
    """Settings of a dataset as canonical JSON, without where its images lie: to move them changes no result."""
    return json.dumps([PARAMS.code_version, json.loads(PARAMS.datasets[wildcards.dataset].canonical())])


def settings_of_evaluation(*parts):
    """A function from wildcards to parts of an evaluator's settings, and of their datasets, as canonical JSON."""

    def content(wildcards):
        evaluation = PARAMS.evaluation[wildcards.evaluation]
        names = [getattr(getattr(evaluation, part), "dataset", None) for part in parts]
        datasets = [json.loads(PARAMS.datasets[name].canonical()) for name in names if name]
        settings = evaluation.model_dump(mode="json", include=set(parts))
        return json.dumps([PARAMS.code_version, settings, datasets], sort_keys=True)

    return content


rule prepare:
    output:
        manifest="data/{dataset}/manifest.json",
    wildcard_constraints:
        dataset="|".join(PARAMS.datasets),
    # All cores, of which Snakemake gives those that there are, to decode image files.
    threads: lambda wildcards: 9999 if isinstance(PARAMS.datasets[wildcards.dataset], ImageFiles) else 1
    params:
        spec=settings_of_dataset,
    shell:
        "dip prepare {wildcards.dataset} --workers {threads}"


rule feature_network:
    input:
        lambda wildcards: Store.of(PARAMS.evaluation[wildcards.evaluation].extractor.dataset).manifest,
    output:
        "data/features/{evaluation}.safetensors",
    wildcard_constraints:
        evaluation="|".join(
            name for name, evaluation in PARAMS.evaluation.items() if isinstance(evaluation.extractor, PhotoExtractor)
        ),
    params:
        spec=settings_of_evaluation("extractor"),
    shell:
        "dip features {wildcards.evaluation}"


def extractor_of(evaluation):
    """The evaluator's own feature network, if it has one."""
    trained = isinstance(PARAMS.evaluation[evaluation].extractor, PhotoExtractor)
    return [feature_network(evaluation)] if trained else []


def reference_data(evaluation):
    """The prepared dataset whose statistics the evaluator compares with, if it does."""
    settings = PARAMS.evaluation[evaluation].reference
    return [Store.of(settings.dataset).manifest] if settings.kind == "dataset" else []


rule reference:
    input:
        lambda wildcards: extractor_of(wildcards.evaluation) + reference_data(wildcards.evaluation),
    output:
        "data/references/{evaluation}.npz",
    wildcard_constraints:
        evaluation="|".join(PARAMS.evaluation),
    params:
        spec=settings_of_evaluation("extractor", "reference", "image_size"),
    shell:
        "dip reference {wildcards.evaluation}"
