"""Figures of the paper."""


def shown_by(wildcards):
    """What a figure is drawn from: the runs of a comparison, or an experiment's own data."""
    figure = entry_of("figures", wildcards)
    if not isinstance(figure, Comparison):
        yield experiment_data(study_of(wildcards), wildcards.name)
        return
    timed = {
        run for panel in figure.panels if panel.y == "latency_seconds" for runs in panel.series.values() for run in runs
    }
    for name in figure.runs:
        folder = RunFolder.of(PARAMS.runs[name].study, name)
        yield folder.metrics
        if name in timed:
            yield folder.latency


def weights_shown(wildcards):
    """The weights that a gallery draws samples with; other experiments need none."""
    figure = entry_of("figures", wildcards)
    if not isinstance(figure, Gallery):
        return []
    run = PARAMS.runs[figure.run]
    return [RunFolder.of(run.study, run.name).weights(run)]


rule experiment:
    input:
        weights_shown,
    output:
        "results/{study}{name}.npz",
    wildcard_constraints:
        name="|".join(PARAMS.figures) or "(?!)",
    params:
        spec=shown("figures", without=("caption", "details")),  # what is written and enlarged changes no number
        study=study_of,
    shell:
        "dip experiment {wildcards.name} --study {params.study}"


rule figure:
    input:
        shown_by,
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
