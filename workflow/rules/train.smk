"""Training, here or on SLURM; and the weights kept beside its result."""


rule train:
    input:
        unpack(inputs_of("train")),
    output:
        model="results/{study}runs/{run}/model.safetensors",
        params="results/{study}runs/{run}/params.json",
        log="results/{study}runs/{run}/training.jsonl",
        curves="results/{study}runs/{run}/training.csv",
        provenance="results/{study}runs/{run}/model.provenance.json",
    wildcard_constraints:
        run=JOBS_OF.names("train"),
    threads: 1
    resources:
        launcher=LAUNCHER,
        slurm=str(JOBS),
        processes=1,
        save_seconds=600,
        save_steps=0,  # 0: none of these
        micro_batch=0,
        sample_every=0,
        gradient_checkpointing="off",
        speed="auto",
    params:
        spec=spec_of("train"),
        sources=sources_of("train"),
    shell:
        "dip train {wildcards.run} --spec {params.spec:q} --launcher {resources.launcher}"
        " --slurm {resources.slurm:q} --processes {resources.processes} --save-seconds {resources.save_seconds}"
        " --save-steps {resources.save_steps} --micro-batch {resources.micro_batch}"
        " --sample-every {resources.sample_every} --gradient-checkpointing {resources.gradient_checkpointing}"
        " --speed {resources.speed}"


rule milestone:
    input:
        unpack(inputs_of("milestone")),
    output:
        model="results/{study}runs/{run}/model.safetensors",
        provenance="results/{study}runs/{run}/model.provenance.json",
    wildcard_constraints:
        run=JOBS_OF.names("milestone"),
    params:
        spec=spec_of("milestone"),
        sources=sources_of("milestone"),
    shell:
        "dip milestone {wildcards.run} --spec {params.spec:q}"
