"""Time that each allocator takes to decide for four agents, and to play a thousand episodes.

A benchmark measures; nothing here fails because a machine is slow.
"""

import numpy as np
import pytest
from support.views import chosen

from baselines import POLICIES, fresh
from gpualloc_env import Batch, load_scenario
from gpualloc_env.metrics import objectives
from training.evaluation.evaluate import rollout

DECISIONS = 1000


@pytest.mark.parametrize("name", POLICIES)
def test_one_decision(benchmark, record, name):
    policy, batch = fresh(POLICIES[name]), Batch(load_scenario("serverless"), 1)
    batch.seed(0)
    batch.reset()
    for _ in range(20):
        batch.step(policy(batch.view))
    view = chosen(batch.view, 0)
    policy(view)

    def run():
        for _ in range(DECISIONS):
            policy(view)

    benchmark.pedantic(run, rounds=20)
    median = benchmark.stats.stats.median / DECISIONS
    record("One decision for four agents", f"`{name}`", 1e6 * median, "µs")
    assert np.sum(policy(view)) <= 1 + 1e-9


@pytest.mark.parametrize("name", POLICIES)
def test_a_thousand_episodes(benchmark, record, name):
    scenario = load_scenario("serverless")

    def run():
        return rollout(POLICIES[name], scenario, 1000, 2**40, record=False)

    batch = benchmark.pedantic(run, rounds=1, warmup_rounds=1)
    record("A thousand `serverless` episodes", f"`{name}`", benchmark.stats.stats.median, "s")
    assert batch.done.all() and np.isfinite(objectives(batch)).all()
