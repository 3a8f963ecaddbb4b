"""What the rules share: the parameters, and the jobs that they describe (dip.pipeline)."""

import os
import sys
from itertools import pairwise
from pathlib import Path

from snakemake.exceptions import WorkflowError

from dip.adoption import adopt
from dip.files import check_writable
from dip.params import load
from dip.paths import JOBS, SNAKEMAKE, study_prefix
from dip.pipeline import Pipeline
from dip.pipeline.workflow import Workflow, failures, study_asked, study_of
from dip.unlock import unlock
from dip.versioning.lock import wait_for_dvc

# The rules call `dip`, also where the environment of this Snakemake was not activated.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])


def refused(function):
    """The function, with its errors in the form that Snakemake shows without a traceback."""

    def call(*arguments):
        try:
            return function(*arguments)
        except (ValueError, OSError) as error:
            raise WorkflowError(str(error)) from None

    return call


PARAMS = refused(load)("params.yaml", refused(study_asked)(config))
JOBS_OF = Workflow(Pipeline(PARAMS))
# Where training, sampling, latency and evaluation run. A profile says so under `default-resources`, because what it has
# under `set-resources` is lost as a whole where the command line has that option too.
DEFAULT_RESOURCES = dict((workflow.resource_settings.default_resources or {}).items())
LAUNCHER = DEFAULT_RESOURCES["launcher"].raw if "launcher" in DEFAULT_RESOURCES else "local"


wildcard_constraints:
    study="|".join(f"(?:{study_prefix(name)})" for name in sorted(PARAMS.studies, key=lambda name: name == "paper")),
    run="[a-z][a-z0-9_]*",
    name="[a-z][a-z0-9_]*",


def inputs_of(rule):
    """A function from wildcards to the inputs of the rule's job."""
    return lambda wildcards: refused(JOBS_OF.inputs)(rule, wildcards)


def spec_of(rule):
    """A function from wildcards to the parameters that the rule's job depends on, as canonical JSON."""
    return lambda wildcards: refused(JOBS_OF.job)(rule, wildcards).spec


def sources_of(rule):
    """A function from wildcards to the checksums of the files that the job depends on and no rule makes."""
    return lambda wildcards: refused(JOBS_OF.sources)(rule, wildcards)


def label_of(run):
    """The label of a run for the report, whose labels have no escape for `{word}`: a sign without width stands in it."""
    return PARAMS.runs[run].label.replace("{", "{\u2060")


onerror:
    print(failures("".join(Path(file).read_text(errors="replace") for file in log)), file=sys.stderr)


if workflow.is_main_process:
    refused(check_writable)(SNAKEMAKE / "records")  # where Snakemake takes its lock, for a plan too
    refused(wait_for_dvc)()
    refused(adopt)(JOBS_OF.pipeline)  # results that DVC has brought
    if "--unlock" in sys.argv:  # of which Snakemake asks nobody, while another one writes here
        refused(unlock)()


for before, word in pairwise(sys.argv):
    if before != "--report":  # whose value is a file to write
        refused(JOBS_OF.check)(word)
