"""Training, here or on SLURM; and the weights kept at milestones."""


rule train:
    input:
        manifest=lambda wildcards: Store.of(run_of(wildcards).dataset_name).manifest,
    output:
        model="results/{study}runs/{run}/model.safetensors",
        params="results/{study}runs/{run}/params.json",
        log="results/{study}runs/{run}/training.jsonl",
    wildcard_constraints:
        run="|".join(name for name, run in PARAMS.runs.items() if run.checkpoint is None) or "(?!)",
    threads: 1
    resources:
        launcher="local",
        save_seconds=600,
        slurm="{}",
    params:
        spec=spec_of(TrainingSpec),
    shell:
        "dip train {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --save-seconds {resources.save_seconds} --slurm {resources.slurm:q}"


rule milestone:
    input:
        lambda wildcards: RunFolder.of(run_of(wildcards).study, run_of(wildcards).checkpoint.run).model,
    output:
        model="results/{study}runs/{run}/model.safetensors",
    wildcard_constraints:
        run="|".join(
            name
            for name, run in PARAMS.runs.items()
            if run.checkpoint and run.checkpoint.epoch not in (None, run.training.epochs)
        )
        or "(?!)",
    params:
        spec=spec_of(MilestoneSpec),
    shell:
        "dip milestone {wildcards.run} --spec {params.spec:q}"
