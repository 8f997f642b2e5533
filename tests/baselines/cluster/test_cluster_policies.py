"""Allocators of clusters: where they place agents, and how they split GPUs."""

import numpy as np
import pytest

from baselines import DEFAULTS, constants_of, fresh, online, policy_for, with_constants
from baselines.cluster import CLUSTER_POLICIES, hierarchical
from gpualloc_env import Node, load_scenario
from gpualloc_env.allocator.levels import algorithm_1_by_levels, gpu_views, parts_of, split
from gpualloc_env.allocator.placement import best_fit_decreasing, by_levels, by_popularity, everywhere
from gpualloc_env.cluster_batch import ClusterBatch


def batch_of(scenario="cluster-small", num_envs=2, steps=0, load=None, **given):
    """A batch after some steps of a policy."""
    batch = ClusterBatch(load_scenario(scenario, load=load).model_copy(update=given), num_envs)
    batch.seed(5)
    batch.reset()
    policy = fresh(CLUSTER_POLICIES["popularity"])
    for _ in range(steps):
        batch.step(policy(batch.view))
    return batch


@pytest.mark.parametrize("place", [everywhere, best_fit_decreasing, by_popularity, by_levels])
@pytest.mark.parametrize("scenario", ["cluster-small", "cluster-nodes", "cluster-fleet"])
def test_placements_fit_into_memory_and_leave_no_agent_out_that_fits(place, scenario):
    view = batch_of(scenario, steps=20).view
    placed = place(view)
    taken = (placed * view.need_mb[:, :, None]).sum(axis=1)
    assert (taken <= view.memory_mb).all()
    left = view.memory_mb - taken
    for b, i in np.argwhere(~placed.any(axis=2)):
        assert (left[b] < view.need_mb[b, i]).all()


@pytest.mark.parametrize("name", CLUSTER_POLICIES)
def test_a_policy_asks_for_shares_that_are_granted_and_decides_alike_alone_and_in_a_batch(name):
    batch, single = batch_of(num_envs=2), batch_of(num_envs=1)
    many, one = fresh(CLUSTER_POLICIES[name]), fresh(CLUSTER_POLICIES[name])
    for _ in range(40):
        asked = many(batch.view)
        alone = one(single.cluster_view_of(0))
        assert alone.shape == asked.shape[1:]
        np.testing.assert_allclose(alone, asked[0], rtol=1e-9, atol=1e-12)
        assert (asked >= 0).all() and (asked.sum(axis=1) <= 1 + 1e-9).all()
        batch.step(asked)
        single.step(alone[None])
        assert not batch.cluster.counts["refused"].any()
    assert batch.history.size == 0 and batch.totals["throughput"].min() > 0


def test_on_one_gpu_that_holds_all_the_levels_are_algorithm_1_and_a_lower_policy_is_itself():
    nodes = (Node(gpus=1, memory_mb=1e6, speed=1.0),)
    batch = batch_of(nodes=nodes, steps=15)
    view = batch.view
    placed = np.ones(view.share.shape, dtype=bool)
    expected = online.adaptive_smoothed(view.agents)
    np.testing.assert_allclose(
        algorithm_1_by_levels(view, parts_of(view, placed))[:, :, 0], expected, rtol=1e-9
    )
    for lower in (online.adaptive_smoothed, online.ProportionalFair(), online.MaxMinFair()):
        np.testing.assert_allclose(
            split(lower, view, parts_of(view, placed))[:, :, 0], lower(view.agents), rtol=1e-6, atol=1e-9
        )


def test_what_a_lower_policy_gives_to_those_that_are_elsewhere_goes_to_those_that_are_there():
    view = batch_of().view
    placed = np.zeros(view.share.shape, dtype=bool)
    placed[:, :2, 0] = placed[:, 2:, 3] = True
    given = split(online.static, view, parts_of(view, placed))
    assert given[0, :, 0].tolist() == [0.5, 0.5, 0, 0, 0, 0, 0, 0] and not given[:, :, 1:3].any()
    assert given[0, 2:, 3] == pytest.approx(np.full(6, 1 / 6))


def test_the_rows_of_the_gpus_share_an_agents_work_by_their_speeds():
    nodes = (Node(gpus=1, memory_mb=1e6, speed=1.0), Node(gpus=1, memory_mb=1e6, speed=3.0))
    batch = batch_of(nodes=nodes, num_envs=1, steps=10)
    view = batch.view
    placed = np.ones(view.share.shape, dtype=bool)
    placed[0, 0, 1] = False
    rows = gpu_views(view, parts_of(view, placed))
    rate = view.agents.rate[0]
    assert rows.rate.shape == (2, 8)
    assert rows.rate[:, 0].tolist() == [rate[0], 0]
    assert rows.rate[:, 1] == pytest.approx(rate[1] * np.array([0.25, 0.75]))
    assert (rows.throughput[1] == 3 * rows.throughput[0]).all() and rows.min_share[1, 0] == 0


def test_best_fit_puts_the_greatest_demand_first_on_the_fullest_gpu_that_can_take_it():
    nodes = tuple(Node(gpus=1, memory_mb=memory, speed=1.0) for memory in (60_000, 40_000, 60_000))
    view = batch_of(nodes=nodes, num_envs=1, warm=False).view
    rate = np.zeros((1, 8))
    # GPUs that keep up: 0.7 with reasoning (56 GB), 0.5 with nlp (22 GB), 0.4 with vision (9 GB).
    for i, load in ((7, 0.7), (4, 0.5), (2, 0.4)):
        rate[0, i] = load * view.agents.throughput[0, i]
    view = view._replace(agents=view.agents._replace(rate=rate, queue=np.zeros((1, 8))))
    placed = best_fit_decreasing(view)[0]
    # Only GPUs 0 and 2 have the memory for reasoning; nlp goes to the next, and vision beside it.
    assert [np.flatnonzero(placed[i]).tolist() for i in (7, 4, 2)] == [[0], [1], [1]]


def test_popular_agents_get_more_instances():
    view = batch_of("cluster-fleet", num_envs=1, steps=30).view
    instances = by_popularity(view)[0].sum(axis=1)
    value = view.agents.rate[0] / view.agents.throughput[0] / view.need_mb[0]
    popular = np.argsort(-value)
    assert instances[popular[:8]].mean() > 2 * instances[popular[32:]].mean()


def test_keep_alive_policies_hold_one_instance_or_as_many_as_the_calls_ask_for():
    batch = batch_of(num_envs=1, load=0.9)
    lru, autoscaler = fresh(CLUSTER_POLICIES["lru"]), fresh(CLUSTER_POLICIES["autoscaler"])
    most = np.zeros(8)
    for _ in range(60):
        one = (lru(batch.view) > 0).sum(axis=2)
        several = autoscaler(batch.view)
        assert (one <= 1).all()
        batch.step(several)
        most = np.maximum(most, batch.view.agents.queue[0])
    instances = (several[0] > 0).sum(axis=1)
    # The window keeps the greatest number of the last 30 s.
    assert (instances > 1).any() and (instances <= np.ceil(most / 8)).all()


def test_a_placement_is_revised_after_its_period_alone():
    batch, policy = batch_of(num_envs=1), hierarchical(period_s=10.0)
    where = []
    for _ in range(20):
        policy(batch.view)
        where.append(policy._held.decided)
        batch.step(np.full((1, 8, 4), 0.1))
    assert all(where[k] is where[0] for k in range(10)) and where[10] is not where[0]
    assert fresh(policy)._held.decided is None


def test_constants_of_the_lower_level_are_searched_and_set_beside_those_of_the_placement():
    declared = CLUSTER_POLICIES["demand"]
    found = constants_of(declared)
    assert {"patience_s", "period_s", "lower.horizon_s"} <= set(found)
    assert found["lower.bill"] == declared.lower.bill
    changed = with_constants(declared, {"loyalty": 7.0, "lower.bill": 0.3})
    assert constants_of(changed) == found | {"loyalty": 7.0, "lower.bill": 0.3}
    assert changed.weights == declared.weights._replace(loyalty=7.0) and changed.lower.bill == 0.3
    # The placement follows.
    view = batch_of(steps=40).view
    lonely = with_constants(
        declared, {"least_demand": 1e-9, "memory_exponent": 0.0, "loyalty": 0.0, "busy": 0.0}
    )
    assert (lonely.place(view) != declared.place(view)).any()
    with pytest.raises(TypeError):
        with_constants(declared, {"lower.horizon": 1.0})


def test_a_policy_above_another_has_the_constants_that_were_tuned_for_the_pair():
    scenario = load_scenario("cluster-small")
    pair, alone = (policy_for(name, scenario) for name in ("autoscaler+receding-horizon", "autoscaler"))
    assert pair.lower != online.RecedingHorizon() and pair.target != alone.target
    # Nothing was tuned for this one: the placement's constants, and the lower level's defaults.
    other = policy_for("demand+queue-aware", scenario)
    assert other.weights == policy_for("demand", scenario).weights and other.lower == DEFAULTS["queue-aware"]
