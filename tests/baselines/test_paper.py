"""What the paper says of its three stress tests, and what comes of them."""

import numpy as np
import pytest

from baselines import adaptive
from gpualloc_env import Batch, load_scenario
from gpualloc_env.metrics import episode_metrics

COORDINATOR, NLP, VISION, REASONING = range(4)


def played(name):
    """Algorithm 1 on one episode: its shares, (T, N), and metrics."""
    batch = Batch(load_scenario(name), 1, record=True)
    batch.seed(0)
    batch.reset()
    for _ in range(batch.scenario.steps):
        batch.step(adaptive(batch.view))
    return batch.history["share"][0], episode_metrics(batch, 0)


def algorithm_1(rates):
    """Shares by hand, (4,)."""
    least = np.array([0.10, 0.30, 0.25, 0.35])
    demand = rates * least / [1, 2, 2, 1]
    shares = np.maximum(least, demand / demand.sum())
    return shares / max(1, shares.sum())


def test_a_spike_is_met_within_one_step_of_a_tenth_of_a_second_and_forgotten_as_fast():
    shares, _ = played("paper-spike")
    before = algorithm_1(np.array([80, 40, 45, 25]))
    during = algorithm_1(np.array([80, 400, 45, 25]))
    assert during[NLP] > 2 * before[NLP]
    # The spike lasts from 40 s to 50 s: steps 400 to 499.
    assert shares[:400] == pytest.approx(np.tile(before, (400, 1)))
    assert shares[400:500] == pytest.approx(np.tile(during, (100, 1)))
    assert shares[500:] == pytest.approx(np.tile(before, (500, 1)))


def test_a_spike_leaves_a_backlog_that_the_shares_do_not_see():
    shares, metrics = played("paper-spike")
    assert shares[999] == pytest.approx(shares[0])
    # NLP: 40 requests/s for 90 s and 400 for 10 s, of which it can serve fewer than 50 per second.
    nlp = metrics["per_agent"]["nlp"]
    assert nlp["arrived"] == pytest.approx(40 * 90 + 400 * 10)
    assert nlp["unfinished"] > 4000


def test_dominance_of_one_agent_leaves_nobody_without_a_share():
    shares, metrics = played("paper-dominance")
    assert (shares > 0.1 / 1.6).all()
    # NLP's demand of 171 · 0.3 / 2 = 25.65 is 0.87 of all; the other three keep R = 0.7; then all are scaled.
    demand = np.array([19 / 3 * 0.1, 25.65, 19 / 3 * 0.25 / 2, 19 / 3 * 0.35])
    total = demand[NLP] / demand.sum() + 0.7
    assert shares[0, NLP] == pytest.approx(demand[NLP] / demand.sum() / total)
    assert shares[0, REASONING] == pytest.approx(0.35 / total)
    for agent in metrics["per_agent"].values():
        assert agent["throughput_rps"] > 0


def test_dominance_still_leaves_three_agents_below_their_guaranteed_minimum():
    shares, metrics = played("paper-dominance")
    assert (shares[0, [COORDINATOR, VISION, REASONING]] < [0.10, 0.25, 0.35]).all()
    assert metrics["min_share_shortfall"] > 0


def test_tripled_traffic_raises_the_latency_by_290_percent_and_not_by_24():
    usual_shares, usual = played("paper")
    shares, overload = played("paper-overload")
    assert shares == pytest.approx(usual_shares)
    assert overload["paper_latency_s"] / usual["paper_latency_s"] - 1 == pytest.approx(2.90, abs=0.01)


def test_normalisation_leaves_three_agents_below_what_the_paper_guarantees():
    shares, _ = played("paper")
    assert shares[0] == pytest.approx([0.2385, 0.2538, 0.2115, 0.2961], abs=5e-5)
    assert (shares[0] < [0.10, 0.30, 0.25, 0.35]).tolist() == [False, True, True, True]
