"""Samples and latency."""


rule sample:
    input:
        weights_of,
    output:
        samples="results/{study}runs/{run}/samples.npz",
        settings="results/{study}runs/{run}/samples.json",
        grid=report(
            "results/{study}runs/{run}/samples.png",
            caption="../report/samples.rst",
            category="Samples",
            subcategory=lambda wildcards: study_of(wildcards),
            labels=lambda wildcards: {"run": wildcards.run, "method": run_of(wildcards).label},
        ),
    resources:
        launcher="local",
        slurm=str(JOBS),
        processes=1,
        batch_size=128,
    params:
        spec=spec_of(SamplingSpec),
    shell:
        "dip sample {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q} --processes {resources.processes} --batch-size {resources.batch_size}"


rule latency:
    input:
        weights_of,
    output:
        "results/{study}runs/{run}/latency.json",
    threads: workflow.cores or 1  # nothing else may run beside a measurement
    resources:
        launcher="local",
        slurm=str(JOBS),
        search_seconds=300,
    params:
        spec=spec_of(SamplingSpec),
    shell:
        "dip latency {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q} --search-seconds {resources.search_seconds}"
