"""Training, here or on SLURM; and the weights kept beside its result."""


def start_of(wildcards):
    """The weights that a training starts from; none where a variable is not set, which the training then names."""
    run = run_of(wildcards)
    key = f"runs.{run.name}.training.init_from"
    if run.training.init_from is None:
        return []
    try:
        path = given_path(run.training.init_from, key, "the weights to start from")
    except ValueError:
        return []
    if path.parts[0] != "results" and not path.exists():
        raise WorkflowError(f"params.yaml: {key}: there is no file '{path}'")
    return [path]


rule train:
    input:
        manifest=lambda wildcards: Store.of(run_of(wildcards).dataset_name).manifest,
        init_from=start_of,
    output:
        model="results/{study}runs/{run}/model.safetensors",
        params="results/{study}runs/{run}/params.json",
        log="results/{study}runs/{run}/training.jsonl",
    wildcard_constraints:
        run="|".join(name for name, run in PARAMS.runs.items() if run.checkpoint is None) or "(?!)",
    threads: 1
    resources:
        launcher="local",
        slurm=str(JOBS),
        processes=1,
        save_seconds=600,
        save_steps=0,  # 0: none of these
        micro_batch=0,
        sample_every=0,
        gradient_checkpointing="off",
    params:
        spec=spec_of(TrainingSpec),
    shell:
        "dip train {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q} --processes {resources.processes} --save-seconds {resources.save_seconds}"
        " --save-steps {resources.save_steps} --micro-batch {resources.micro_batch}"
        " --sample-every {resources.sample_every} --gradient-checkpointing {resources.gradient_checkpointing}"


rule milestone:
    input:
        lambda wildcards: RunFolder.of(run_of(wildcards).study, run_of(wildcards).checkpoint.run).model,
    output:
        model="results/{study}runs/{run}/model.safetensors",
    wildcard_constraints:
        run="|".join(name for name, run in PARAMS.runs.items() if run.is_milestone) or "(?!)",
    params:
        spec=spec_of(MilestoneSpec),
    shell:
        "dip milestone {wildcards.run} --spec {params.spec:q}"
