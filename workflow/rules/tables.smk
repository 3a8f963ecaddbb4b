"""Tables of the paper."""

from importlib.resources import files


def rows_of(wildcards):
    """Files of the runs that a table shows."""
    for name in entry_of("tables", wildcards).runs:
        run = PARAMS.runs[name]
        folder, trained = RunFolder.of(run.study, name), RunFolder.of(run.study, trained_by(run).name)
        yield from (folder.metrics, folder.latency, trained.params, trained.training_log)


rule table:
    input:
        runs=rows_of,
        published=lambda wildcards: os.path.relpath(files("dip.reporting") / "published.csv"),
    output:
        csv=report(
            "results/{study}{name}.csv",
            caption="../report/table.rst",
            category="Tables",
            subcategory=lambda wildcards: study_of(wildcards),
            labels=lambda wildcards: {"table": wildcards.name},
        ),
        markdown="results/{study}{name}.md",
        latex="results/{study}{name}.tex",
    wildcard_constraints:
        name="|".join(PARAMS.tables) or "(?!)",
    params:
        spec=shown("tables"),
        study=study_of,
        caption=lambda wildcards: entry_of("tables", wildcards).caption,
    shell:
        "dip table {wildcards.name} --study {params.study}"
