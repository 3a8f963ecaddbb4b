"""DVC over the same jobs as Snakemake: stages written from them, built by Snakemake, recorded by DVC."""
