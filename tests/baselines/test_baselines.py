import gymnasium as gym
import numpy as np
import pytest
from support.views import chosen, random_view, view

import baselines
from baselines import (
    DEFAULTS,
    POLICIES,
    Stateful,
    adaptive,
    adaptive_smoothed,
    fresh,
    policy_for,
    register,
    round_robin,
    static,
)
from gpualloc_env import Batch, load_scenario
from gpualloc_env.allocator.algorithm_1 import algorithm_1
from gpualloc_env.metrics import episode_metrics

# Round-robin gives turns in the order in which the agents stand.
BLIND_TO_ORDER = [name for name in POLICIES if name != "round-robin"]
PLATFORMS = [
    {},
    {"slice": 1 / 7},
    {"gpus": 8.0},
    {"gpus": 8.0, "slice": 1 / 7},
    {"gpus": 0.5},
    {"dt": 0.1},
    {"reallocation_s": 0.0, "deadband": 0.0},
]


def algorithm_1_of(rates, min_shares, priorities, gpus=1.0):
    return algorithm_1(
        np.array(rates, dtype=float), np.array(min_shares), np.array(priorities, dtype=float), gpus
    )


def started(name, num_envs=1, seed=0, **changes):
    batch = Batch(load_scenario(name, **changes), num_envs, record=True)
    batch.seed(seed)
    batch.reset()
    return batch


def paper_metrics(policy):
    batch = started("paper")
    for _ in range(100):
        batch.step(POLICIES[policy](batch.view))
    return episode_metrics(batch, 0)


def test_algorithm_1_shares_by_demand():
    # Demands 10·0.2/1 = 2 and 20·0.2/2 = 2 and 0: half each, none below its minimum of 0.2 but the third.
    shares = algorithm_1_of([10, 20, 0], [0.2, 0.2, 0.0], [1, 2, 1])
    assert shares.tolist() == [0.5, 0.5, 0.0]


def test_algorithm_1_floors_at_the_minimum_share_and_scales_back_to_the_capacity():
    # Demands 9 and 1 of 10: 0.9 and max(0.3, 0.1); their sum 1.2 is scaled to 1.
    shares = algorithm_1_of([30, 10 / 3], [0.3, 0.3], [1, 1])
    assert shares == pytest.approx([0.75, 0.25])


def test_algorithm_1_gives_nobody_anything_without_demand():
    assert algorithm_1_of([0, 0], [0.3, 0.3], [1, 1]).tolist() == [0, 0]


def test_algorithm_1_gives_an_idle_agent_its_minimum():
    assert algorithm_1_of([5, 0], [0.4, 0.2], [1, 1]) == pytest.approx([1 / 1.2, 0.2 / 1.2])


def test_algorithm_1_returns_fractions_of_all_gpus():
    # Minimum 1 of 4 GPUs is a quarter; demand shares are 0.9 and 0.1 of all.
    shares = algorithm_1_of([9, 1], [1.0, 1.0], [1, 1], gpus=4.0)
    assert shares == pytest.approx([0.9 / 1.15, 0.25 / 1.15])


def test_algorithm_1_ignores_a_factor_common_to_all_agents():
    once = algorithm_1_of([80, 40, 45, 25], [0.10, 0.30, 0.25, 0.35], [1, 2, 2, 1])
    thrice = algorithm_1_of([240, 120, 135, 75], [0.10, 0.30, 0.25, 0.35], [1, 2, 2, 1])
    assert thrice == pytest.approx(once, rel=1e-12)


def test_algorithm_1_does_not_change_what_it_reads():
    rates, least, rank = np.array([1.0, 2.0]), np.array([0.5, 0.5]), np.array([1.0, 2.0])
    algorithm_1(rates, least, rank, 1.0)
    assert rates.tolist() == [1, 2] and least.tolist() == [0.5, 0.5] and rank.tolist() == [1, 2]


def test_adaptive_reads_the_inflow_of_the_step_and_adaptive_smoothed_the_smoothed_rate():
    batch = started("serverless")
    for _ in range(20):
        batch.step(np.full((1, 4), 0.25))
    view = batch.view
    inflow = algorithm_1(view.inflow / view.dt, view.min_share, view.priority, view.gpus)
    smoothed = algorithm_1(view.rate, view.min_share, view.priority, view.gpus)
    assert adaptive(view) == pytest.approx(inflow)
    assert adaptive_smoothed(view) == pytest.approx(smoothed)
    assert (inflow != smoothed).any()


def test_static_is_a_quarter_each():
    assert static(started("paper", 2).view).tolist() == [[0.25] * 4] * 2


def test_round_robin_gives_the_whole_platform_to_agent_t_mod_4_also_after_a_reset():
    batch = started("paper", 2, steps=6)
    for _ in range(2):
        for t in range(6):
            batch.step(round_robin(batch.view))
            assert batch.view.share.tolist() == [[float(i == t % 4) for i in range(4)]] * 2
        batch.reset()


def test_round_robin_keeps_its_order_in_each_environment_of_a_batch():
    batch = started("paper", 2)
    batch.step(round_robin(batch.view))
    batch.step(round_robin(batch.view), np.array([True, False]))
    assert round_robin(batch.view).argmax(axis=1).tolist() == [2, 1]


def test_round_robin_goes_on_where_one_agent_cannot_hold_all_gpus():
    scenario = load_scenario("paper").model_copy(
        update={"platform": load_scenario("paper").platform.model_copy(update={"gpus": 3.0})}
    )
    batch = Batch(scenario, 1)
    batch.seed(0)
    batch.reset()
    for t in range(6):
        batch.step(round_robin(batch.view))
        assert batch.view.share[0].tolist() == [float(i == t % 4) for i in range(4)]


@pytest.mark.parametrize(
    ("policy", "latency", "throughput", "deviation"),
    [
        ("static", 110.258, 60.0, 6.01),
        ("round-robin", 756.061, 60.0, 0.47),
        ("adaptive", 111.927, 58.12, 13.68),
    ],
)
def test_the_papers_table_is_reconstructed(policy, latency, throughput, deviation):
    metrics = paper_metrics(policy)
    assert metrics["paper_latency_s"] == pytest.approx(latency, abs=5e-4)
    assert metrics["paper_throughput_rps"] == pytest.approx(throughput, abs=5e-3)
    assert metrics["paper_latency_std_s"] == pytest.approx(deviation, abs=5e-3)
    assert metrics["cost_usd"] == pytest.approx(0.02)


def test_adaptive_by_agent_as_in_the_paper():
    agents = paper_metrics("adaptive")["per_agent"].values()
    assert [agent["paper_latency_s"] for agent in agents] == pytest.approx(
        [118.86, 108.67, 128.56, 91.61], abs=5e-3
    )
    assert [agent["share_mean"] for agent in agents] == pytest.approx(
        [0.2385, 0.2538, 0.2115, 0.2961], abs=5e-5
    )


def test_the_time_in_the_system_is_the_same_for_all_three():
    latencies = [paper_metrics(name)["latency_mean_s"] for name in ("static", "round-robin", "adaptive")]
    assert latencies == pytest.approx([34.7, 34.7, 35.2], abs=0.05)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_one_line_in_a_gymnasium_loop(name):
    env, policy = gym.make("GPUAlloc-v0", steps=20), fresh(POLICIES[name])
    env.reset(seed=0)
    truncated = False
    while not truncated:
        truncated = env.step(policy(env.unwrapped.view))[3]
    assert env.unwrapped.episode_metrics()["throughput_rps"] > 0


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_decides_in_a_batch_as_it_does_alone_bit_for_bit(name):
    policy, *own, last = (fresh(POLICIES[name]) for _ in range(7))
    batch = started("serverless", 5, seed=10)
    alone = [started("serverless", 1, seed=10 + k) for k in range(5)]
    env = gym.make("GPUAlloc-v0").unwrapped
    env.reset(seed=12)
    for _ in range(60):
        shares = policy(batch.view)
        assert shares.shape == (5, 4)
        for k, single in enumerate(alone):
            share = own[k](single.view)
            assert share.tobytes() == shares[k : k + 1].tobytes()
            single.step(share)
        share = last(env.view)
        assert share.shape == (4,) and share.tobytes() == shares[2].tobytes()
        env.step(share)
        batch.step(shares)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_asks_for_no_more_than_the_platform(name):
    batch, policy = started("serverless", 20), fresh(POLICIES[name])
    for _ in range(60):
        shares = policy(batch.view)
        assert (shares >= 0).all() and (shares.sum(axis=1) <= 1 + 1e-12).all()
        batch.step(shares)


def assert_valid(shares, seen):
    assert shares.shape == seen.queue.shape and shares.dtype == np.float64
    assert np.isfinite(shares).all()
    assert (shares >= 0).all() and (shares.sum(axis=-1) <= 1 + 1e-9).all()


@pytest.mark.parametrize("settings", PLATFORMS, ids=str)
@pytest.mark.parametrize("name", POLICIES)
def test_shares_are_valid_on_any_platform_and_for_any_number_of_agents(name, settings):
    for shape in ((1,), (2,), (64,), (30, 4), (3, 64)):
        seen = random_view(shape, seed=len(shape) + shape[-1], **settings)
        assert_valid(fresh(POLICIES[name])(seen), seen)


@pytest.mark.parametrize(
    "extreme",
    [
        {"queue": [0.0] * 4},
        {"queue": [0.0] * 4, "share": [0.25] * 4, "idle": [1e6] * 4},
        {"queue": [1e15, 0, 0, 1e15], "inflow": [1e15, 0, 0, 0], "rate": [1e14, 0, 0, 1e-12]},
        {"queue": [1e-12] * 4, "rate": [1e-300] * 4, "kappa": [1e-9, 0, 1e9, 2]},
        {"queue": [5.0] * 4, "loading": [1e9, 4, 1, 0.95], "reallocation_s": 0.1, "deadband": 0.02},
        {"queue": [5.0] * 4, "rate": [5.0] * 4, "priority": [1, 1000, 1, 1], "throughput": [1e-3, 1e6, 1, 1]},
        {"queue": [3.0] * 4, "rate": [3.0] * 4, "reallocation_s": 5.0},
        {"queue": [3.0] * 4, "gpus": 1e-3},
        {"queue": [3.0] * 4, "gpus": 1000.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", POLICIES)
def test_shares_are_valid_on_extreme_views(name, extreme):
    seen = view(**extreme)
    assert_valid(fresh(POLICIES[name])(seen), seen)


@pytest.mark.parametrize("settings", PLATFORMS, ids=str)
@pytest.mark.parametrize("name", BLIND_TO_ORDER)
def test_reordering_the_agents_reorders_the_shares(name, settings):
    order = np.random.default_rng(5).permutation(6)
    for seed in range(20):
        seen = random_view((6,), seed=seed, **settings)
        there = chosen(seen, order)
        shares = fresh(POLICIES[name])(seen)
        assert fresh(POLICIES[name])(there) == pytest.approx(shares[order], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_does_not_change_what_it_sees(name):
    seen = random_view((3, 4), seed=1)
    before = [np.copy(column) for column in seen]
    fresh(POLICIES[name])(seen)
    assert all((old == new).all() for old, new in zip(before, seen, strict=True))


@pytest.mark.parametrize("name", POLICIES)
def test_two_rollouts_share_no_memory(name):
    seen, other = random_view((4,), seed=2), random_view((4,), seed=3)
    first = fresh(POLICIES[name])(seen)
    policy = fresh(POLICIES[name])
    for _ in range(5):
        policy(other)
    assert fresh(policy)(seen).tolist() == first.tolist()
    assert (fresh(policy) is policy) == (not isinstance(policy, Stateful))


def test_only_the_autoscalers_have_memory():
    stateful = [name for name, policy in POLICIES.items() if isinstance(policy, Stateful)]
    assert stateful == ["autoscaler", "kubernetes-hpa", "knative"]


def test_constants_belong_to_a_scenario(monkeypatch):
    tables = {
        "serverless": {"queue-aware": {"horizon_s": 3.0}},
        "steady": {"queue-aware": {"horizon_s": 7.0}},
    }
    monkeypatch.setattr("baselines.tuned", lambda: tables)
    assert policy_for("queue-aware", "serverless").horizon_s == 3.0
    assert policy_for("queue-aware", "steady").horizon_s == 7.0
    assert policy_for("queue-aware", "of-my-own") is DEFAULTS["queue-aware"]
    assert policy_for("static", "steady") is static


def test_the_registry_has_the_constants_of_the_default_scenario():
    assert POLICIES == {name: policy_for(name, "serverless") for name in DEFAULTS}


def test_a_policy_from_elsewhere_can_be_registered_under_a_new_name(monkeypatch):
    monkeypatch.setattr("baselines.DEFAULTS", dict(DEFAULTS))
    monkeypatch.setattr("baselines.POLICIES", dict(POLICIES))

    def greedy(view):
        return (view.queue == view.queue.max(axis=-1, keepdims=True)).astype(float)

    register("greedy", greedy)
    assert (
        baselines.DEFAULTS["greedy"]
        is baselines.POLICIES["greedy"]
        is policy_for("greedy", "steady")
        is greedy
    )
    with pytest.raises(
        ValueError, match="'all' stands for every policy in a command; give the policy another"
    ):
        register("all", greedy)
    for name in ("greedy", "cmu", "clairvoyant"):
        with pytest.raises(ValueError, match=f"there is a policy named '{name}' already"):
            register(name, greedy)
