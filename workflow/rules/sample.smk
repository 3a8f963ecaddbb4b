"""Samples and latency."""


rule sample:
    input:
        unpack(inputs_of("sample")),
    output:
        samples="results/{study}runs/{run}/samples.npz",
        settings="results/{study}runs/{run}/samples.json",
        grid=report(
            "results/{study}runs/{run}/samples.png",
            caption="../report/samples.rst",
            category="Samples",
            subcategory=lambda wildcards: study_of(wildcards.study),
            labels=lambda wildcards: {"run": wildcards.run, "method": label_of(wildcards.run)},
        ),
        provenance="results/{study}runs/{run}/samples.provenance.json",
    resources:
        launcher=LAUNCHER,
        slurm=str(JOBS),
        processes=1,
        batch_size=128,
        speed="auto",
    params:
        spec=spec_of("sample"),
        sources=sources_of("sample"),
    shell:
        "dip sample {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q} --processes {resources.processes} --batch-size {resources.batch_size}"
        " --speed {resources.speed}"


rule latency:
    input:
        unpack(inputs_of("latency")),
    output:
        latency="results/{study}runs/{run}/latency.json",
        provenance="results/{study}runs/{run}/latency.provenance.json",
    threads: workflow.cores or 1  # nothing else may run beside a measurement
    resources:
        launcher=LAUNCHER,
        slurm=str(JOBS),
        search_seconds=300,
        speed="auto",
    params:
        spec=spec_of("latency"),
        sources=sources_of("latency"),
    shell:
        "dip latency {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q} --search-seconds {resources.search_seconds}"
        " --speed {resources.speed}"
