"""Steps a second of clusters, beside CartPole-v1, and the time of a decision in each instance."""

import numpy as np
import pytest
from support.stepping import SINGLE_STEPS, single

from baselines import fresh
from baselines.cluster import CLUSTER_POLICIES
from baselines.cluster.levels import _algorithm_1_by_levels
from gpualloc_env import load_scenario
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.simulation.threads import VARIABLE


@pytest.mark.parametrize("name", ["cluster-small", "cluster-nodes", "cluster-fleet"])
def test_single_cluster(against_cartpole, name):
    loop = single("GPUCluster-v0", SINGLE_STEPS, scenario=name)
    described = {"name": f"`gym.make` of {name}", "scenario": name, "num_envs": 1, "threads": 1}
    agents = len(load_scenario(name).agents)
    against_cartpole(loop, rounds=20, **described, agents=agents, bytes_per_env=None)


@pytest.mark.parametrize("policy", ["popularity", "hierarchical"])
@pytest.mark.parametrize("name", ["cluster-small", "cluster-fleet"])
def test_steps_of_a_batch(benchmark, monkeypatch, name, policy):
    monkeypatch.setenv(VARIABLE, "1")
    batch, decide = ClusterBatch(load_scenario(name), 4), fresh(CLUSTER_POLICIES[policy])
    batch.seed(0)
    batch.reset()
    shares = []
    for _ in range(batch.scenario.steps):
        shares.append(decide(batch.view))
        batch.step(shares[-1])

    def episodes():
        batch.reset()
        for asked in shares:
            batch.step(asked)

    benchmark.pedantic(episodes, rounds=5, warmup_rounds=1)
    benchmark.extra_info["steps_per_s"] = 4 * batch.scenario.steps / benchmark.stats.stats.median


def test_levels_of_a_million_instances(benchmark):
    agents, gpus = 4000, 250
    random = np.random.default_rng(0)
    work, least = random.uniform(size=(1, agents)), np.full((1, agents), 0.01)
    part = random.random((1, agents, gpus)) * (random.random((1, agents, gpus)) < 0.5)
    arrays = work, least, part, np.empty((2, gpus)), np.empty(part.shape)
    _algorithm_1_by_levels(*arrays)
    benchmark(_algorithm_1_by_levels, *arrays)
    benchmark.extra_info["ns_per_instance"] = benchmark.stats.stats.median / (agents * gpus) * 1e9
