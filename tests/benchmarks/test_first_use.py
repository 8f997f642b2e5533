"""Seconds until the package is imported and until the first step is done, in a new interpreter.

A benchmark measures; nothing here fails because a machine is slow.
"""

import os
import subprocess
import sys

STEP = """
import gymnasium as gym, gpualloc_env
env = gym.make("GPUAlloc-v0")
env.reset(seed=0)
env.step(env.action_space.sample())
"""
GROUP = "First use, in a new interpreter"


def python(program, environment):
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, check=True, capture_output=True
    )


def test_import(benchmark, record):
    benchmark.pedantic(python, ("import gpualloc_env", {}), rounds=10, warmup_rounds=1)
    record(GROUP, "`import gpualloc_env`", benchmark.stats.stats.median, "s")


def test_first_step(benchmark, record):
    benchmark.pedantic(python, (STEP, {}), rounds=10, warmup_rounds=1)
    record(GROUP, "the same, `gym.make`, `reset` and one `step`", benchmark.stats.stats.median, "s")


def test_first_step_ever(benchmark, record, tmp_path):
    benchmark.pedantic(python, (STEP, {"NUMBA_CACHE_DIR": str(tmp_path)}), rounds=1)
    assert any(tmp_path.rglob("*.nbi"))  # what the first step has compiled
    record(GROUP, "the same, nothing compiled yet", benchmark.stats.stats.median, "s", "once for a machine")
