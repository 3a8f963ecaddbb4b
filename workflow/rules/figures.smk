"""Figures of the paper."""


def points_of(wildcards):
    """Files of the runs that a figure shows; a measured latency only where a panel draws it."""
    figure = entry_of("figures", wildcards)
    timed = {
        run for panel in figure.panels if panel.y == "latency_seconds" for runs in panel.series.values() for run in runs
    }
    for name in figure.runs:
        folder = RunFolder.of(PARAMS.runs[name].study, name)
        yield folder.metrics
        if name in timed:
            yield folder.latency


rule figure:
    input:
        points_of,
    output:
        pdf="results/{study}{name}.pdf",
        png=report(
            "results/{study}{name}.png",
            caption="../report/figure.rst",
            category="Figures",
            subcategory=lambda wildcards: study_of(wildcards),
            labels=lambda wildcards: {"figure": wildcards.name},
        ),
    wildcard_constraints:
        name="|".join(PARAMS.figures) or "(?!)",
    params:
        spec=shown("figures"),
        study=study_of,
        caption=lambda wildcards: entry_of("figures", wildcards).caption,
    shell:
        "dip figure {wildcards.name} --study {params.study}"
