"""A comparison keeps the sums of what was played, not every step of every policy."""

import numpy as np
import pytest

from baselines import POLICIES
from gpualloc_env.scenario import load_scenario
from gpualloc_env.simulation.state import OUTCOME
from training.evaluation import evaluate as module
from training.evaluation.evaluate import evaluate
from training.evaluation.held_out import count_episodes


@pytest.mark.parametrize("policy", ["autoscaler", "receding-horizon"])
def test_episodes_played_part_by_part_are_those_played_together(monkeypatch, policy):
    scenario = load_scenario("serverless", steps=40)
    whole = evaluate(policy, POLICIES[policy], scenario, 7, 3)
    monkeypatch.setattr(module, "LARGEST_RECORD", 3 * 40 * 4 * OUTCOME.itemsize)
    parts = evaluate(policy, POLICIES[policy], scenario, 7, 3)
    assert parts.metrics == whole.metrics and parts.per_agent == whole.per_agent
    assert (parts.steps.first == whole.steps.first).all()
    for name in OUTCOME.names:
        assert parts.steps.mean[name] == pytest.approx(whole.steps.mean[name], abs=1e-12)
    assert parts.steps.mean_rate == pytest.approx(whole.steps.mean_rate)


def test_what_is_kept_does_not_grow_with_the_episodes():
    scenario = load_scenario("serverless", steps=20)
    few, many = (evaluate("static", POLICIES["static"], scenario, count, 0).steps for count in (2, 40))
    sizes = [sum(np.asarray(part).nbytes for part in vars(steps).values()) for steps in (few, many)]
    assert sizes[0] == sizes[1] <= 3 * 20 * 4 * OUTCOME.itemsize


def test_more_episodes_than_memory_holds_the_metrics_of_are_refused_before_any_is_played():
    with pytest.raises(ValueError, match=r"episodes = 1000000000 of 'serverless' need .* play at most"):
        count_episodes(10**9, load_scenario("serverless"))
