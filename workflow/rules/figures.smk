"""Figures of the paper."""


rule experiment:
    input:
        unpack(inputs_of("experiment")),
    output:
        data="results/{study}{name}.npz",
        provenance="results/{study}{name}.experiment.provenance.json",
    wildcard_constraints:
        name=JOBS_OF.names("experiment"),
    params:
        spec=spec_of("experiment"),
        sources=sources_of("experiment"),
        study=lambda wildcards: study_of(wildcards.study),
    shell:
        "dip experiment {wildcards.name} --study {params.study}"


rule figure:
    input:
        unpack(inputs_of("figure")),
    output:
        pdf="results/{study}{name}.pdf",
        png=report(
            "results/{study}{name}.png",
            caption="../report/caption.rst",
            category="Figures",
            subcategory=lambda wildcards: study_of(wildcards.study),
            labels=lambda wildcards: {"figure": wildcards.name},
        ),
        provenance="results/{study}{name}.provenance.json",
    wildcard_constraints:
        name=JOBS_OF.names("figure"),
    params:
        spec=spec_of("figure"),
        sources=sources_of("figure"),
        study=lambda wildcards: study_of(wildcards.study),
        caption=lambda wildcards: PARAMS.figures[wildcards.name][study_of(wildcards.study)].caption,
    shell:
        "dip figure {wildcards.name} --study {params.study}"
