"""Servers of calls against closed forms of queueing theory."""

from math import factorial

import numpy as np
import pytest

from training.validation.calls import TOKENS, Queue
from training.validation.calls import simulated as calls_of_queue

LOADS = (0.5, 0.7, 0.9)
FIRST_COME = {"prefill_s_per_token": 1 / TOKENS, "max_batch": 1}


def simulated(agent, law, load, servers=1, calls=16000, seed=0):
    """Mean sojourns of replications after a third of each, (R,), and the work of all calls, both in seconds.

    A call's work takes a second in the mean on a whole GPU; calls come as a Poisson process.
    """
    means, _, work = calls_of_queue(Queue("", "", law, servers, agent), load, seed, calls=calls)
    return means, work


def assert_within_interval(means, expected):
    half = 2.04 * means.std(ddof=1) / np.sqrt(len(means))  # Student's t with 31 degrees of freedom
    assert abs(means.mean() - expected) <= half, (means.mean(), half, expected)
    assert half < 0.2 * expected


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("law", ["constant", "exponential", "hyperexponential"])
def test_one_place_and_prefill_alone_is_first_come_first_served(law, load):
    """M/G/1: Pollaczek and Khinchine, W = λ E[S²]/(2 (1 − ρ)) + E[S]."""
    means, work = simulated(FIRST_COME, law, load, seed=1)
    load *= work.mean()
    expected = work.mean() + load / work.mean() * (work**2).mean() / (2 * (1 - load))
    assert_within_interval(means, expected)


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("law", ["constant", "exponential", "hyperexponential"])
def test_an_iteration_that_grows_with_the_batch_is_processor_sharing(law, load):
    """M/G/1 with processor sharing: E[S]/(1 − ρ), whatever the law of the work."""
    agent = {"iteration_s_per_call": 1 / TOKENS, "max_batch": 10**6}
    means, work = simulated(agent, law, load, seed=2)
    assert_within_interval(means, work.mean() / (1 - load * work.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("servers", [2, 5])
def test_an_iteration_that_does_not_grow_is_a_queue_of_many_servers(servers, load):
    """M/M/c: Erlang's C formula."""
    agent = {"iteration_s": 1 / TOKENS, "max_batch": servers}
    means, work = simulated(agent, "exponential", load, servers, seed=3)
    offered = load * servers * work.mean()
    tail = offered**servers / factorial(servers) / (1 - offered / servers)
    waits = tail / (sum(offered**k / factorial(k) for k in range(servers)) + tail)
    assert_within_interval(means, work.mean() * (1 + waits / (servers - offered)))


def test_a_single_queue_in_short():
    means, work = simulated(FIRST_COME, "constant", 0.5, calls=300)
    assert means.mean() == pytest.approx(1.5, rel=0.05) and (work == 1).all()
