import os
import subprocess
import sys

# The limit is lowered: compiling small functions passes it.
PROGRAM = """
import numpy as np
from gpualloc_env import compiled
compiled.PATIENCE_S = 0.0
from gpualloc_env.simulation.random import exponential, seed_generator
generator = np.zeros(4, dtype=np.uint64)
seed_generator(generator, np.uint64(1))
exponential(generator, 1.0)
"""


def test_a_long_compilation_says_once_what_it_is_and_a_warm_cache_says_nothing(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    cold, warm = (
        subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for _ in range(2)
    )
    assert cold.startswith("compiling the simulator, once for this machine") and cold.count("\n") == 1
    assert warm == ""
