"""Servers of calls against closed forms of queueing theory."""

from math import factorial

import numpy as np
import pytest
from support.call_episodes import call_times, replayed, scenario_of, server

from gpualloc_env.simulation.calls import Tasks

REPLICATIONS = 32
LOADS = (0.5, 0.7, 0.9)
TOKENS = 1000  # mean work of a call; its tokens are whole numbers


def work_of(law, rng, count):
    """Whole numbers of tokens whose mean is about TOKENS."""
    if law == "constant":
        return np.full(count, TOKENS)
    if law == "exponential":
        return np.ceil(rng.exponential(TOKENS, count)).astype(np.int64)
    if law == "hyperexponential":  # squared coefficient of variation about 4
        mean = np.where(rng.random(count) < 0.1, 7.0, 1 / 3) * TOKENS
        return np.ceil(rng.exponential(mean)).astype(np.int64)
    raise ValueError(law)


def simulated(agent, law, load, servers=1, calls=16000, seed=0):
    """Mean sojourns of replications after a third of each, (R,), in units of the mean work of the calls.

    A call's work takes a second in the mean on a whole GPU; calls come as a Poisson process.
    """
    rng = np.random.default_rng(seed)
    window = int(calls / (load * servers))
    count = rng.poisson(load * servers * window, REPLICATIONS)
    time = np.concatenate([np.sort(rng.uniform(0, window, n)) + k * window for k, n in enumerate(count)])
    work = work_of(law, rng, len(time))
    prefill = agent.prefill_s_per_token > 0
    ones, none = np.ones_like(work), np.zeros_like(work)
    tasks = Tasks(
        time,
        np.arange(len(time) + 1),
        none,
        none,
        work if prefill else none,
        ones if prefill else work + 1,
        none.astype(float),
    )
    scenario = scenario_of(agent, steps=window // 10 + 20, dt=10.0)
    # The windows have the steps in which the last calls are finished besides.
    tasks = tasks._replace(
        time=time + np.repeat(np.arange(REPLICATIONS), count) * (scenario.steps * 10 - window)
    )
    batch = replayed(scenario, tasks, num_envs=REPLICATIONS, episodes=REPLICATIONS, record=False)
    batch.world.windows[:] = np.arange(REPLICATIONS)
    batch.reset()
    for _ in range(scenario.steps):
        batch.step(np.ones((REPLICATIONS, 1)))
    means = []
    for b in range(REPLICATIONS):
        times = call_times(batch, b)
        own = (times[:, 0] > window / 3) & np.isfinite(times[:, 2])
        means.append((times[own, 2] - times[own, 0]).mean())
    return np.array(means), work / TOKENS


def assert_within_interval(means, expected):
    half = 2.04 * means.std(ddof=1) / np.sqrt(len(means))  # Student's t with 31 degrees of freedom
    assert abs(means.mean() - expected) <= half, (means.mean(), half, expected)
    assert half < 0.2 * expected


FIRST_COME = {"prefill_s_per_token": 1 / TOKENS, "prompt_tokens": TOKENS, "output_tokens": 1}
DECODED = {"prefill_s_per_token": 0.0, "prompt_tokens": 0, "output_tokens": TOKENS}


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("law", ["constant", "exponential", "hyperexponential"])
def test_one_place_and_prefill_alone_is_first_come_first_served(law, load):
    """M/G/1: Pollaczek and Khinchine, W = λ E[S²]/(2 (1 − ρ)) + E[S]."""
    means, work = simulated(server(**FIRST_COME), law, load, seed=1)
    load *= work.mean()
    expected = work.mean() + load / work.mean() * (work**2).mean() / (2 * (1 - load))
    assert_within_interval(means, expected)


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("law", ["constant", "exponential", "hyperexponential"])
def test_an_iteration_that_grows_with_the_batch_is_processor_sharing(law, load):
    """M/G/1 with processor sharing: E[S]/(1 − ρ), whatever the law of the work."""
    agent = server(iteration_s_per_call=1 / TOKENS, max_batch=10**6, **DECODED)
    means, work = simulated(agent, law, load, seed=2)
    assert_within_interval(means, work.mean() / (1 - load * work.mean()))


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("servers", [2, 5])
def test_an_iteration_that_does_not_grow_is_a_queue_of_many_servers(servers, load):
    """M/M/c: Erlang's C formula."""
    agent = server(iteration_s=1 / TOKENS, max_batch=servers, **DECODED)
    means, work = simulated(agent, "exponential", load, servers, seed=3)
    offered = load * servers * work.mean()
    tail = offered**servers / factorial(servers) / (1 - offered / servers)
    waits = tail / (sum(offered**k / factorial(k) for k in range(servers)) + tail)
    assert_within_interval(means, work.mean() * (1 + waits / (servers - offered)))


def test_a_single_queue_in_short():
    means, work = simulated(server(**FIRST_COME), "constant", 0.5, calls=300)
    assert means.mean() == pytest.approx(1.5, rel=0.05) and (work == 1).all()
