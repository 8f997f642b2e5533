"""Running the scripts of `examples/` for a few iterations."""

import os
import runpy
import subprocess
import sys

from support.places import ROOT


def example(name, *arguments, **environment):
    """What a script says."""
    command = [sys.executable, ROOT / "examples" / name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def main_of(name):
    """The `main` of a script, to be called in this process."""
    return runpy.run_path(str(ROOT / "examples" / name))["main"]
