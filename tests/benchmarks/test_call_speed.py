"""Calls a second through servers of calls, and a single environment of them beside CartPole-v1."""

import numpy as np
import pytest
from support.episodes import started
from support.stepping import SINGLE_STEPS, single

from gpualloc_env import load_scenario


@pytest.mark.parametrize("name", ["llm", "team", "magentic"])
def test_calls_of_a_batch(benchmark, name):
    batch = started(load_scenario(name), 64)
    shares = np.full((64, 4), 0.25)

    def episodes():
        batch.reset()
        for _ in range(batch.scenario.steps):
            batch.step(shares)

    benchmark.pedantic(episodes, rounds=10, warmup_rounds=1)
    benchmark.extra_info["calls_per_s"] = float(batch.inflows.sum() / benchmark.stats.stats.median)


@pytest.mark.parametrize("name", ["team", "llm"])
def test_single_environment_of_calls(against_cartpole, name):
    loop = single("GPUAlloc-v0", SINGLE_STEPS, scenario=name)
    described = {"name": f"`gym.make` of {name}", "scenario": name, "num_envs": 1, "agents": 4, "threads": 1}
    against_cartpole(loop, rounds=20, **described, bytes_per_env=None)
