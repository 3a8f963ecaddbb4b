"""Photographs, datasets, feature networks and references."""


rule photograph:
    output:
        image="data/photographs/{photograph}",
        provenance="data/photographs/{photograph}.provenance.json",
    wildcard_constraints:
        photograph=JOBS_OF.names("photograph"),
    params:
        spec=spec_of("photograph"),
    shell:
        "dip photograph {wildcards.photograph}"


rule prepare:
    input:
        unpack(inputs_of("prepare")),
    output:
        manifest="data/{dataset}/manifest.json",
        provenance="data/{dataset}/manifest.provenance.json",
    wildcard_constraints:
        dataset=JOBS_OF.names("prepare"),
    threads: lambda wildcards: JOBS_OF.cores(wildcards.dataset)
    params:
        spec=spec_of("prepare"),
        sources=sources_of("prepare"),
    shell:
        "dip prepare {wildcards.dataset} --workers {threads}"


rule feature_network:
    input:
        unpack(inputs_of("feature_network")),
    output:
        network="data/features/{evaluation}.safetensors",
        provenance="data/features/{evaluation}.provenance.json",
    wildcard_constraints:
        evaluation=JOBS_OF.names("feature_network"),
    params:
        spec=spec_of("feature_network"),
        sources=sources_of("feature_network"),
    shell:
        "dip features {wildcards.evaluation}"


rule reference:
    input:
        unpack(inputs_of("reference")),
    output:
        reference="data/references/{evaluation}.npz",
        provenance="data/references/{evaluation}.provenance.json",
    wildcard_constraints:
        evaluation=JOBS_OF.names("reference"),
    params:
        spec=spec_of("reference"),
        sources=sources_of("reference"),
    shell:
        "dip reference {wildcards.evaluation}"
