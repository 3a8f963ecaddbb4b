"""Datasets, feature networks and references."""


def settings_of_dataset(wildcards):
    """Settings of a dataset as canonical JSON, where its images come from included."""
    dataset = PARAMS.datasets[wildcards.dataset]
    source = getattr(dataset, "source", None)
    return json.dumps([PARAMS.code_version, source, json.loads(dataset.canonical())])


def settings_of_evaluation(*parts):
    """A function from wildcards to parts of an evaluator's settings as canonical JSON."""

    def content(wildcards):
        evaluation = PARAMS.evaluation[wildcards.evaluation].model_dump(mode="json")
        return json.dumps([PARAMS.code_version, {part: evaluation[part] for part in parts}], sort_keys=True)

    return content


rule prepare:
    output:
        manifest="data/{dataset}/manifest.json",
    params:
        spec=settings_of_dataset,
    wildcard_constraints:
        dataset="|".join(PARAMS.datasets),
    shell:
        "dip prepare {wildcards.dataset}"


rule feature_network:
    input:
        lambda wildcards: Store.of(PARAMS.evaluation[wildcards.evaluation].extractor.dataset).manifest,
    output:
        "data/features/{evaluation}.safetensors",
    params:
        spec=settings_of_evaluation("extractor"),
    wildcard_constraints:
        evaluation="|".join(
            name for name, evaluation in PARAMS.evaluation.items() if isinstance(evaluation.extractor, PhotoExtractor)
        ),
    shell:
        "dip features {wildcards.evaluation}"


def extractor_of(evaluation):
    """The evaluator's own feature network, if it has one."""
    trained = isinstance(PARAMS.evaluation[evaluation].extractor, PhotoExtractor)
    return [feature_network(evaluation)] if trained else []


rule reference:
    input:
        lambda wildcards: extractor_of(wildcards.evaluation),
    output:
        "data/references/{evaluation}.npz",
    params:
        spec=settings_of_evaluation("extractor", "reference", "image_size"),
    wildcard_constraints:
        evaluation="|".join(PARAMS.evaluation),
    shell:
        "dip reference {wildcards.evaluation}"
