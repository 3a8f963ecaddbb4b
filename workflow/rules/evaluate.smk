"""Metrics of a run's samples."""


rule evaluate:
    input:
        unpack(inputs_of("evaluate")),
    output:
        metrics="results/{study}runs/{run}/metrics.json",
        scores="results/{study}runs/{run}/scores.json",
        provenance="results/{study}runs/{run}/metrics.provenance.json",
    resources:
        launcher=LAUNCHER,
        slurm=str(JOBS),
    params:
        spec=spec_of("evaluate"),
        sources=sources_of("evaluate"),
    shell:
        "dip evaluate {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q}"
