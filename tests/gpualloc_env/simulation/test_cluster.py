"""Clusters by hand, beside a pool of one GPU, and what holds at every step whatever happens."""

import numpy as np
import pytest
from hypothesis import given, settings
from support.call_episodes import server, tasks_of
from support.cluster_episodes import clusters, replayed_cluster
from support.episodes import bits, started

from gpualloc_env import Network, Node, Platform, Scenario, Traffic, load_scenario
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.metrics import episode_metrics
from gpualloc_env.simulation.residency import EVENTS
from gpualloc_env.simulation.state import INFO

ONE_GPU = (Node(gpus=1, memory_mb=1e9, speed=1.0),)


def cluster_of(*agents, nodes, steps=10, platform=None, **given):
    """A scenario of servers that take a second of prefill for each token, on some nodes."""
    rates = (1.0, *[0.0] * (len(agents) - 1))
    return Scenario(
        name="cluster",
        service="requests",
        agents=agents,
        nodes=nodes,
        platform=platform or Platform(),
        traffic=Traffic(rates_rps=rates),
        steps=steps,
        **given,
    )


def node(gpus=1, memory_mb=100.0, speed=1.0, host_memory_mb=0.0):
    return Node(gpus=gpus, memory_mb=memory_mb, speed=speed, host_memory_mb=host_memory_mb)


def model(name, model_mb, **given):
    return server(name, model_mb=model_mb, **given)


NO_TASKS = tasks_of((9.9, [(0, 0, 1, 1, 0)]))


def held(batch):
    """Which agents each GPU holds."""
    resident = batch.view.resident[0] > 0
    return [np.flatnonzero(column).tolist() for column in resident.T]


def sleeping(batch):
    """Which agents sleep on the node of each GPU."""
    return [np.flatnonzero(column).tolist() for column in batch.view.asleep[0].T]


def counted(batch, name):
    return batch.cluster.counts[name][0]


def finished(batch):
    return batch.service.calls["finished"][0, : batch.service.run["calls"][0]].tolist()


@pytest.mark.parametrize("name", ["llm", "team", "magentic"])
@pytest.mark.parametrize("some_get_nothing", [False, True])
def test_one_gpu_that_holds_everything_is_a_pool_of_one_gpu(name, some_get_nothing):
    scenario = load_scenario(name, steps=120)
    platform = scenario.platform.model_copy(update={"gpus": 1.0, "keep_alive_s": np.inf})
    pool = started(scenario.model_copy(update={"platform": platform}), 1, 4, record=True)
    alone = ClusterBatch(scenario.model_copy(update={"platform": platform, "nodes": ONE_GPU}), 1, record=True)
    alone.seed(4)
    alone.reset()
    random = np.random.default_rng(0)
    for _ in range(scenario.steps):
        action = random.uniform(0, 1, 4) * (random.random(4) < 0.7 if some_get_nothing else 1.0)
        pool.step(action[None])
        alone.step(action[None, :, None])
        for column in INFO:
            np.testing.assert_allclose(alone.outcome[column], pool.outcome[column], rtol=1e-9, atol=1e-9)
        for column in pool.worth.dtype.names:
            np.testing.assert_allclose(alone.worth[column], pool.worth[column], rtol=1e-9, atol=1e-9)
        if not some_get_nothing:
            # Without a share a call waits at its agent; in a pool its prefill has begun, and stands still.
            seen = alone.observation["agents"][:, :, :-1]
            np.testing.assert_allclose(seen, pool.observation, rtol=1e-6, atol=1e-9)
    ours, theirs = episode_metrics(alone, 0), episode_metrics(pool, 0)
    for key, value in theirs.items():
        if key != "per_agent":
            assert ours[key] == pytest.approx(value, rel=1e-9, nan_ok=True), key


def test_at_reset_gpus_take_their_own_agents_first_and_then_the_others_as_long_as_they_fit():
    agents = [model(f"agent-{i}", size) for i, size in enumerate((40, 30, 20, 50, 60))]
    scenario = cluster_of(*agents, nodes=(node(2, host_memory_mb=100), node(1, host_memory_mb=1000)))
    batch = replayed_cluster(scenario, NO_TASKS)
    # GPU 0: 0, 3 take 90, then 1 does not fit. GPU 1: 1, 4 take 90. GPU 2: 2, then 0, then 1 take 90.
    assert held(batch) == [[0, 3], [1, 4], [0, 1, 2]]
    assert sleeping(batch) == [[2], [2], [3, 4]]
    cold = replayed_cluster(scenario.model_copy(update={"warm": False}), NO_TASKS)
    assert held(cold) == [[], [], []] and sleeping(cold) == [[], [], []]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_what_fills_a_memory_exactly_fits_whatever_rounding_says(order):
    sizes = (100.1, 200.2, 600.6)
    agents = [model(f"agent-{i}", size) for i, size in enumerate(sizes)]
    scenario = cluster_of(*agents, nodes=(node(memory_mb=900.9),))
    assert held(replayed_cluster(scenario, NO_TASKS)) == [[0, 1, 2]]
    cold = replayed_cluster(scenario.model_copy(update={"warm": False}), NO_TASKS)
    for count in (1, 2, 3):
        shares = np.zeros((1, 3, 1))
        shares[0, order[:count]] = 0.1
        cold.step(shares)
        assert counted(cold, "refused") == 0
    assert held(cold) == [[0, 1, 2]]


def test_who_has_been_idle_for_longest_leaves_first_and_the_lowest_agent_of_those():
    agents = [model(f"agent-{i}", size) for i, size in enumerate((30, 30, 30, 30, 50))]
    batch = replayed_cluster(cluster_of(*agents, nodes=(node(),)), NO_TASKS)
    assert held(batch) == [[0, 1, 2]]
    batch.step([[[0.5], [0], [0], [0], [0]]])
    # Agents 1 and 2 have been idle for one step, 0 for none: 3 takes the place of 1, the lower of both.
    batch.step([[[0], [0], [0], [0.5], [0]]])
    assert held(batch) == [[0, 2, 3]] and counted(batch, "evictions") == 1
    # 50 more need two of three places: first 2, then 0, while 3 was busy in the last step.
    batch.step([[[0], [0], [0], [0], [1]]])
    assert held(batch) == [[3, 4]] and counted(batch, "evictions") == 2


def test_a_share_that_finds_no_memory_is_refused_and_nobody_leaves_or_gets_it():
    agents = [model(f"agent-{i}", size) for i, size in enumerate((60, 30, 50))]
    batch = replayed_cluster(cluster_of(*agents, nodes=(node(),)), NO_TASKS)
    assert held(batch) == [[0, 1]]
    batch.step([[[0.5], [0], [0.5]]])
    assert counted(batch, "refused") == 1 and counted(batch, "evictions") == 0
    assert held(batch) == [[0, 1]]
    assert batch.shown.share[0].tolist() == [[0.5], [0], [0]]
    batch.step([[[1], [0], [1]]])
    assert batch.shown.share[0].tolist() == [[0.5], [0], [0]]


def test_calls_meet_what_is_loaded_waking_or_starting_cold_and_memory_is_measured():
    agents = [model("loaded", 60), model("asleep", 50), model("gone", 70)]
    platform = Platform(container_start_s=2, load_mb_per_s=40, wake_s=0.5, wake_mb_per_s=80)
    scenario = cluster_of(*agents, nodes=(node(host_memory_mb=115),), platform=platform)
    calls = [(time, [(i, 0, 1, 1, 0)]) for i, time in enumerate((0.1, 1.1, 4.1))]
    batch = replayed_cluster(scenario, tasks_of(*calls))
    assert held(batch) == [[0]] and sleeping(batch) == [[1]]
    for t in range(10):
        now = 0 if t < 1 else 1 if t < 4 else 2
        batch.step([[[float(i == now)] for i in range(3)]])
    metrics = episode_metrics(batch, 0)
    met = [metrics[f"{each}_calls"] for each in ("hot", "woken", "cold")]
    assert met == pytest.approx([1 / 3] * 3) and (metrics["wakes"], metrics["cold_starts"]) == (1, 1)
    # For 1, 3 and 6 steps 60, 50 and 70 of 100 MB on the GPU, and 50, 60 and 110 of 115 on the host.
    assert metrics["gpu_memory_held"] == pytest.approx(0.63)
    assert metrics["host_memory_held"] == pytest.approx(89 / 115)


TIERS = Platform(
    container_start_s=2, load_mb_per_s=40, wake_s=0.5, wake_mb_per_s=80, sleep_after_s=2, keep_alive_s=4
)


def test_a_sleeping_model_wakes_and_one_that_is_gone_starts_cold():
    scenario = cluster_of(model("a", 80), nodes=(node(host_memory_mb=100),), platform=TIERS, steps=30)
    batch = replayed_cluster(scenario, tasks_of((0.0, [(0, 0, 1, 1, 0)])))
    view = batch.view
    assert view.loading[0, 0, 0] == 0
    batch.step([[[0.5]]])
    for asleep in (0, 1):
        batch.step([[[0.0]]])
        assert view.asleep[0, 0, 0] == asleep
    # 0.5 s + 80/80 s, of which one step has passed.
    assert view.loading[0, 0, 0] == 1.5
    batch.step([[[0.1]]])
    assert counted(batch, "wakes") == 1 and view.loading[0, 0, 0] == 0.5 and view.asleep[0, 0, 0] == 0
    for _ in range(4):
        batch.step([[[0.0]]])
    # Asleep after 2 s, gone after 4 s: 2 s + 80/40 s.
    assert view.asleep[0, 0, 0] == 0 and view.resident[0, 0, 0] == 0 and view.loading[0, 0, 0] == 4
    batch.step([[[0.1]]])
    assert counted(batch, "cold_starts") == 1 and view.loading[0, 0, 0] == 3


def test_a_call_waits_until_the_model_is_loaded_and_its_prefill_goes_on_at_the_speed_of_the_gpu():
    scenario = cluster_of(model("a", 80), nodes=(node(speed=2.0),), platform=TIERS, warm=False)
    batch = replayed_cluster(scenario, tasks_of((0.25, [(0, 0, 1, 1, 0)])))
    for _ in range(6):
        batch.step([[[0.5]]])
    # Loaded at 4 s; one second of prefill at half of a GPU of speed 2.
    assert finished(batch) == [5.0]


def test_those_that_sleep_longest_are_dropped_from_a_host_without_room():
    agents = [model(f"agent-{i}", size) for i, size in enumerate((40, 40, 40, 70))]
    scenario = cluster_of(*agents, nodes=(node(host_memory_mb=80),), platform=Platform(sleep_after_s=np.inf))
    batch = replayed_cluster(scenario, NO_TASKS)
    assert held(batch) == [[0, 1]] and sleeping(batch) == [[2]]
    batch.step([[[0], [0], [1], [0]]])
    assert held(batch) == [[1, 2]] and sleeping(batch) == [[0]]
    batch.step([[[0], [0], [0], [1]]])
    # 1 and then 2, busy in the last step, leave: 0 and 1 fill the host, so 2 takes the place of 0.
    assert held(batch) == [[3]] and sleeping(batch) == [[1, 2]]
    batch.step([[[1], [0], [0], [0]]])
    # 70 drops both.
    assert held(batch) == [[0]] and sleeping(batch) == [[3]] and counted(batch, "cold_starts") == 1


def test_a_hop_delays_a_call_whose_previous_stage_finished_on_another_node():
    agents = [model(f"agent-{i}", 60) for i in range(2)]
    network = Network(hop_s=0.5, network_mb_per_s=16e-6)
    scenario = cluster_of(*agents, nodes=(node(), node()), network=network)
    tasks = tasks_of((0.0, [(0, 0, 1, 1, 0), (1, 1, 2, 1, 0)]))
    batch = replayed_cluster(scenario, tasks)
    assert held(batch) == [[0], [1]]
    for _ in range(5):
        batch.step([[[1, 0], [0, 1]]])
    # One second of prefill, 0.5 s + 2 · 4 bytes / 16 bytes a second on the way, and two of prefill.
    assert finished(batch) == [1.0, 4.0] and batch.cluster.totals["hops"][0] == 1
    near = cluster_of(*agents, nodes=(node(2),), network=network)
    batch = replayed_cluster(near, tasks)
    for _ in range(5):
        batch.step([[[1, 0], [0, 1]]])
    assert finished(batch) == [1.0, 3.0] and batch.cluster.totals["hops"][0] == 0


def test_calls_go_to_the_loaded_instance_with_the_least_calls_for_its_speed_and_the_lowest_of_several():
    nodes = (node(), node(speed=2.0), node())
    tasks = tasks_of(*((0.1 * m, [(0, 0, 100, 1, 0)]) for m in range(8)))
    batch = replayed_cluster(cluster_of(model("a", 60), nodes=nodes), tasks)
    batch.step([[[1.0, 1.0, 1.0]]])
    # 1/1, 1/2, 1/1; 1/1, 2/2, 1/1: the lowest; 2/1, 2/2, 1/1; 2, 2/2 → 1 before 3; then 2/1, 3/2, 2/1 …
    assert batch.service.calls["at"][0, :8].tolist() == [1, 0, 1, 2, 1, 0, 1, 2]


def test_instances_that_load_take_calls_only_where_no_other_has_a_share():
    scenario = cluster_of(
        model("a", 60), model("b", 60), nodes=(node(), node()), platform=Platform(container_start_s=2.5)
    )
    tasks = tasks_of(*((time, [(0, 0, 1, 1, 0)]) for time in (0.1, 0.2, 2.4, 2.6)))
    batch = replayed_cluster(scenario, tasks)
    for _ in range(3):
        batch.step([[[0.01, 1.0], [0, 0]]])
    # GPU 1 evicts b and loads a until 2.5 s.
    assert batch.service.calls["at"][0, :4].tolist() == [0, 0, 0, 1]


def test_an_evicted_call_loses_what_it_had_and_calls_are_dispatched_in_order_of_issue():
    agents = [model("a", 60), model("b", 60)]
    tasks = tasks_of((0.0, [(0, 0, 2, 1, 0)]), (0.5, [(0, 0, 1, 1, 0)]))
    batch = replayed_cluster(cluster_of(*agents, nodes=(node(),)), tasks)
    batch.step([[[1], [0]]])
    assert batch.view.held[0].tolist() == [0, 0]
    batch.step([[[0], [1]]])
    assert batch.view.held[0].tolist() == [2, 0]
    assert batch.outcome["queue"][0].tolist() == [2, 0]
    for _ in range(4):
        batch.step([[[1], [0]]])
    # Two seconds for the first call once more from 2 s on, then one for the other.
    assert finished(batch) == [4.0, 5.0]


def test_calls_that_wait_return_when_the_share_ends_and_the_one_in_prefill_stays():
    tasks = tasks_of((0.0, [(0, 0, 2, 1, 0)]), (0.5, [(0, 0, 1, 1, 0)]))
    batch = replayed_cluster(cluster_of(model("a", 60), nodes=(node(2),)), tasks)
    batch.step([[[1, 0]]])
    assert batch.view.calls[0].tolist() == [[2, 0]]
    batch.step([[[0, 1]]])
    # The second goes to the other GPU and is through at 2 s; the first goes on from 2 s to 3 s.
    assert batch.view.calls[0].tolist() == [[1, 0]]
    batch.step([[[1, 0]]])
    assert finished(batch) == [3.0, 2.0]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(clusters())
def test_nothing_is_lost_and_no_memory_overflows(case):
    scenario, tasks, actions = case
    batch = replayed_cluster(scenario, tasks)
    view, issued, served = batch.view, 0, 0
    host_mb = np.array([node.host_memory_mb for node in scenario.nodes])
    first_gpu = [view.node.tolist().index(n) for n in range(len(host_mb))]
    kv_tokens = batch.agents["kv_tokens"][0]
    for t, action in enumerate(actions):
        batch.step(action[None])
        outcome, servers = batch.outcome[0], batch.service.servers[0].reshape(action.shape)
        issued, served = issued + batch.inflows[t, 0], served + outcome["served"]
        assert (issued == served + outcome["queue"]).all()
        inside = servers["running"] + servers["waiting"] + servers["coming"] + (servers["in_prefill"] >= 0)
        assert (outcome["queue"] == inside.sum(axis=1) + view.held[0]).all()
        assert (servers["kv_in_use"] <= kv_tokens[:, None]).all()
        resident = batch.shown.resident[0]
        assert (resident.T @ view.need_mb[0] <= view.memory_mb).all()
        assert (view.asleep[0][:, first_gpu].T @ view.model_mb[0] <= host_mb).all()
        assert (batch.shown.share[0] >= 0).all() and (batch.shown.share[0].sum(axis=0) <= 1 + 1e-9).all()
        assert (inside[~resident] == servers["coming"][~resident]).all()
        assert not batch.shown.share[0][~resident & (batch.view.idle[0] > 0)].any()
        assert np.isin(finished(batch), np.inf).sum() == len(tasks.agent) - served.sum()


@pytest.mark.parametrize("name", ["cluster-small", "cluster-nodes"])
def test_environment_k_of_a_batch_is_the_single_one_bit_for_bit(name):
    scenario = load_scenario(name, steps=40)
    batch, singles = ClusterBatch(scenario, 3, record=True), []
    batch.seed(7)
    for k in range(3):
        singles.append(ClusterBatch(scenario, 1, record=True))
        singles[k].seed(7 + k)
    random = np.random.default_rng(1)
    shape = 3, batch.num_agents, batch.num_gpus
    for _ in range(2):
        for each in (batch, *singles):
            each.reset()
        for _ in range(scenario.steps):
            action = random.uniform(0, 1, shape) * (random.random(shape) < 0.3)
            batch.step(action)
            for k, single in enumerate(singles):
                single.step(action[k : k + 1])
                assert bits(batch.worth[k]) == bits(single.worth[0])
                for name in ("agents", "instances", "gpus"):
                    assert batch.observation[name][k].tobytes() == single.observation[name][0].tobytes()
                assert bits(batch.cluster.counts[k]) == bits(single.cluster.counts[0])
    assert sum(batch.cluster.totals[name].sum() for name in EVENTS) > 50
