"""Metrics of a run's samples."""


rule evaluate:
    input:
        samples="results/{study}runs/{run}/samples.npz",
        reference=lambda wildcards: reference(run_of(wildcards).evaluation_name),
        extractor=lambda wildcards: extractor_of(run_of(wildcards).evaluation_name),
    output:
        "results/{study}runs/{run}/metrics.json",
    resources:
        launcher="local",
        slurm=str(JOBS),
    params:
        spec=spec_of(EvaluationSpec),
    shell:
        "dip evaluate {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q}"
