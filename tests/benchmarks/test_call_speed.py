"""Calls a second through servers of calls, beside SimPy; the replay of a log; one environment."""

from math import inf
from time import perf_counter

import numpy as np
import pytest
from support.episodes import started
from support.log_samples import log_lines, write_log
from support.stepping import SINGLE_STEPS, single

from gpualloc_env import Batch, load_scenario
from training.validation.simpy_calls import simulate


@pytest.mark.parametrize("name", ["llm", "team", "magentic"])
def test_calls_of_a_batch(benchmark, record, name):
    """Tasks drawn and played, and the same model in SimPy on the tasks of one of the environments."""
    batch = started(load_scenario(name), 64)
    shares = np.full((64, 4), 0.25)

    def episodes():
        batch.reset()
        for _ in range(batch.scenario.steps):
            batch.step(shares)

    benchmark.pedantic(episodes, rounds=10, warmup_rounds=1)
    calls_per_s = float(batch.inflows.sum() / benchmark.stats.stats.median)
    scenario, begin = batch.scenario, perf_counter()
    times = simulate(
        scenario.agents, batch.tasks(0), lambda agent, time: (0.5, inf), scenario.steps * scenario.dt
    )
    simpy_per_s = np.isfinite(np.array(times)[:, 0]).sum() / (perf_counter() - begin)
    note = f"{calls_per_s / simpy_per_s:.0f} times SimPy"
    record("Calls drawn and served by a batch of 64", f"`{name}`", calls_per_s, "calls/s", note)


def test_the_replay_of_a_log(benchmark, record, tmp_path):
    """23,608 requests, one a second in the mean, each one call: time to play them once loaded."""
    lines = log_lines("plain with tokens", 23_608)
    log = write_log(tmp_path / "log.csv", lines)
    span = int(float(lines[-1].split(",")[0]))
    scenario = load_scenario("llm", trace=log, split="all", steps=span // 10, dt=10.0)
    trace = scenario.trace.model_copy(update={"assignment": "by-length"})
    batch = Batch(scenario.model_copy(update={"trace": trace}), 1)
    shares = np.full((1, 4), 0.25)

    def replay():
        for _ in range(batch.scenario.steps):
            batch.step(shares)

    def again():
        batch.seed(0)
        batch.reset()

    again()
    replay()
    benchmark.pedantic(replay, setup=again, rounds=20)
    calls = int(batch.service.run["calls"][0])
    assert calls > 23_000
    record("Replay of a log", f"{calls:,} calls", 1000 * benchmark.stats.stats.median, "ms")


@pytest.mark.parametrize("name", ["team", "llm"])
def test_single_environment_of_calls(against_cartpole, name):
    loop = single("GPUAlloc-v0", SINGLE_STEPS, scenario=name)
    described = {"name": f"`gym.make` of {name}", "scenario": name, "num_envs": 1, "agents": 4, "threads": 1}
    against_cartpole(loop, rounds=20, **described, bytes_per_env=None)
