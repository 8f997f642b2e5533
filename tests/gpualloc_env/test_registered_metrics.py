"""Metrics registered from outside the package."""

import numpy as np
import pytest

from gpualloc_env import Batch, load_scenario, metrics
from gpualloc_env.metrics import BUILT_IN, REGISTERED, episode_metrics, register


@pytest.fixture(autouse=True)
def restored():
    yield
    REGISTERED.clear()


def played():
    batch = Batch(load_scenario("steady", steps=5), 2, record=True)
    batch.seed(0)
    batch.reset()
    for _ in range(5):
        batch.step(np.full((2, 4), 0.25))
    return batch


def test_a_registered_metric_stands_beside_the_others():
    register("queue_maximum_requests", lambda batch, b: batch.recorded(b)["queue"].sum(axis=1).max())
    batch = played()
    found = [episode_metrics(batch, b)["queue_maximum_requests"] for b in range(2)]
    assert found == [batch.history[b]["queue"].sum(axis=1).max() for b in range(2)]
    assert type(found[0]) is float


def test_the_names_of_the_others_are_those_of_an_episode():
    assert (*BUILT_IN, "per_agent") == tuple(episode_metrics(played(), 0))


@pytest.mark.parametrize("name", ["objective", "cost_usd", "per_agent", "mine"])
def test_a_name_that_is_taken_is_refused(name):
    if name == "mine":
        register(name, lambda batch, b: 0.0)
    with pytest.raises(ValueError, match=f"metric '{name}' is there already; give it another name"):
        metrics.register(name, lambda batch, b: 0.0)


@pytest.mark.parametrize("value", ["text", None, np.zeros(2)])
def test_what_is_no_number_is_refused_with_the_name_of_the_metric(value):
    register("mine", lambda batch, b: value)
    with pytest.raises(ValueError, match="the registered metric 'mine' must return a number, got") as refused:
        episode_metrics(played(), 0)
    assert repr(value) in str(refused.value)
