"""Seconds that the clairvoyant bound of an episode takes.

A benchmark measures; nothing here fails because a machine is slow.
"""

import pytest

from baselines import bound
from gpualloc_env import Batch, load_scenario


@pytest.mark.parametrize("name", ["serverless", "steady", "workflow", "paper-spike", "fleet"])
def test_bound_of_an_episode(benchmark, record, name):
    scenario = load_scenario(name)
    batch = Batch(scenario, 1)
    batch.seed(10000)
    batch.reset()
    episode = batch.arrivals[:, 0], batch.state["mean_rate"][0].copy(), batch.agents[0]
    rounds = 3 if name == "fleet" else 30
    least = benchmark.pedantic(bound, (scenario, *episode), rounds=rounds, warmup_rounds=1)
    record("The bound of an episode", f"`{name}`", benchmark.stats.stats.median, "s")
    assert least.objective < 100
