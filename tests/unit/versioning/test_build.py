"""What the stages of DVC call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_RECORDED = Path(__file__).parents[3] / "workflow" / "recorded"
# In the place of a Snakemake, which waits for its jobs, or of the `dip build` that has called it.
_CALLED = "#!/bin/sh\ntrap 'sleep 1; touch ended; exit 1' INT; touch ready; sleep 60 & wait"
_BUILD = """
from dip.versioning.build import exit_code
exit_code(["./dip"])
"""


@pytest.mark.parametrize("caller", [("-c", _BUILD), (_RECORDED, "demo", "results/demo/table1.provenance.json")])
def test_what_was_called_ends_an_interrupt_itself(tmp_path: Path, caller: tuple[str, ...]) -> None:
    """Wrong: after Ctrl-C the folder would stay locked, and the same command fail until `dip unlock`."""
    (tmp_path / "dip").write_text(_CALLED)
    (tmp_path / "dip").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(
        [sys.executable, *caller],
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    ) as process:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        process.wait()
        assert (tmp_path / "ended").exists()
    assert process.returncode != 0
