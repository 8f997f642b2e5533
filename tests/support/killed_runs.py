"""Train a run in child processes that are killed at random moments, then let one finish.

python tests/support/killed_runs.py OUT KILLS LONGEST_DELAY, with the configuration as JSON on standard input.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from training.train import TrainConfig, main


def start(config):
    """Train in a forked child: the imports, which take longest, are done."""
    child = os.fork()
    if child == 0:
        main(config)
        sys.stdout.flush()
        os._exit(0)
    return child


def written(out):
    """When the checkpoint was written, None before the first."""
    checkpoint = out / "checkpoint.pt"
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else None


if __name__ == "__main__":
    out, kills, longest = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    given = json.load(sys.stdin)
    config = TrainConfig(**{**given, "hidden": tuple(given["hidden"])}, out=out)
    generator = np.random.default_rng(0)
    endings = []
    for kill in range(kills):
        before = written(out)
        child = start(config)
        # Every other run gets as far as another checkpoint; the others are killed at any moment.
        while kill % 2 and written(out) == before:
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, longest))
        os.kill(child, signal.SIGKILL)
        endings.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    endings.append(os.waitstatus_to_exitcode(os.waitpid(start(config), 0)[1]))
    print(json.dumps(endings))
