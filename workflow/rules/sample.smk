"""Samples and latency."""


rule sample:
    input:
        weights_of,
    output:
        samples="results/{study}runs/{run}/samples.npz",
        grid=report(
            "results/{study}runs/{run}/samples.png",
            caption="../report/samples.rst",
            category="Samples",
            subcategory=lambda wildcards: study_of(wildcards),
            labels=lambda wildcards: {"run": wildcards.run, "method": run_of(wildcards).label},
        ),
    params:
        spec=spec_of(SamplingSpec),
    shell:
        "dip sample {wildcards.run} --spec {params.spec:q}"


rule latency:
    input:
        weights_of,
    output:
        "results/{study}runs/{run}/latency.json",
    threads: workflow.cores or 1  # nothing else may run beside a measurement
    params:
        spec=spec_of(SamplingSpec),
    shell:
        "dip latency {wildcards.run} --spec {params.spec:q}"
