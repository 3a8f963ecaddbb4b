"""Tables of the paper."""


rule table:
    input:
        unpack(inputs_of("table")),
    output:
        csv="results/{study}{name}.csv",
        markdown="results/{study}{name}.md",
        html=report(
            "results/{study}{name}.html",
            caption="../report/caption.rst",
            category="Tables",
            subcategory=lambda wildcards: study_of(wildcards.study),
            labels=lambda wildcards: {"table": wildcards.name},
        ),
        latex="results/{study}{name}.tex",
        provenance="results/{study}{name}.provenance.json",
    wildcard_constraints:
        name=JOBS_OF.names("table"),
    params:
        spec=spec_of("table"),
        sources=sources_of("table"),
        study=lambda wildcards: study_of(wildcards.study),
        caption=lambda wildcards: PARAMS.tables[wildcards.name][study_of(wildcards.study)].caption,
    shell:
        "dip table {wildcards.name} --study {params.study}"
