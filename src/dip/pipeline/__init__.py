"""The jobs of a study: what each of them reads and writes, and the parameters that it depends on.

The rules of Snakemake and the stages of DVC are both made from this description, so that they agree.
"""

from dip.pipeline.job import Job
from dip.pipeline.jobs import Pipeline

__all__ = ["Job", "Pipeline"]
