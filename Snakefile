"""DiP: data -> train -> sample -> evaluate -> tables, figures, report.

Edit params.yaml, then run `snakemake --profile workflow/profiles/demo`, `workflow/profiles/local` or `slurm`.
"""


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sample.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"


report: "workflow/report/workflow.rst"


rule all:
    """The tables, figures and sample grids of one study: params.yaml's `study`, or `--config study=paper`."""
    default_target: True
    input:
        JOBS_OF.targets(PARAMS.study),


rule figures:
    """All figures of the study, also those made on request."""
    input:
        JOBS_OF.figures(PARAMS.study),
