import math

import numpy as np
import pytest
from support.episodes import started

from gpualloc_env import Agent, Batch, Platform, Scenario, Traffic, load_scenario
from gpualloc_env.metrics import episode_metrics

SLICES = 40  # parts of a request in the brute force


def played(scenario, policy, seed=0, num_envs=1):
    batch = started(scenario, num_envs, seed, record=True)
    for t in range(scenario.steps):
        batch.step(np.asarray(policy(t, batch.view), dtype=float).reshape(num_envs, -1))
    return batch


def one_agent(rate=10.0, base=10.0, steps=4, dt=1.0, law="constant", **agent):
    agents = (Agent(name="solo", model_mb=0, throughput_rps=base, **agent),)
    traffic = Traffic(law=law, rates_rps=(rate,))
    return Scenario(name="solo", agents=agents, traffic=traffic, steps=steps, dt=dt)


def single_wave(scenario, requests, shares):
    """One agent, `requests` at the start and none later, and one share for each step."""
    batch = started(scenario, record=True)
    assert batch.arrivals[0, 0, 0] == requests
    batch.arrivals[1:] = 0
    for share in shares:
        batch.step(np.array([[share]]))
    return episode_metrics(batch, 0)


def brute_force(batch, b, i):
    """Sojourn time of every small part of every request, and whether it left: request by request."""
    history, dt = batch.history[b, :, i], batch.scenario.dt
    steps = len(history)
    times, left = [], []
    departed = np.concatenate([[0], np.cumsum(history["served"])])
    position = 0.0
    for cohort, inflow in enumerate(batch.inflows[:steps, b, i]):
        for part in range(math.ceil(inflow * SLICES)):
            parts = math.ceil(inflow * SLICES)
            level = position + (part + 0.5) * inflow / parts
            t = int(np.searchsorted(departed, level)) - 1
            if t < steps:
                rate = history[t]["capacity"] / (dt - history[t]["delay"])
                leaves = t * dt + history[t]["delay"] + (level - departed[t]) / rate
                times.append((leaves - cohort * dt, inflow / parts))
                left.append(True)
            else:
                times.append(((steps - cohort) * dt, inflow / parts))
                left.append(False)
        position += inflow
    return np.array(times).reshape(-1, 2), np.array(left, dtype=bool)


def weighted_quantile(times, probability):
    ordered = times[np.argsort(times[:, 0], kind="stable")]
    cumulative = np.cumsum(ordered[:, 1])
    return ordered[np.searchsorted(cumulative, probability * cumulative[-1]), 0]


def restless(seed):
    generator = np.random.default_rng(seed)
    return lambda t, view: generator.dirichlet(np.full(view.queue.shape[-1], 0.4), view.queue.shape[0])


CASES = [
    (load_scenario("serverless", steps=40), 0),
    (load_scenario("serverless", steps=40, load=3), 1),
    (load_scenario("serverless", steps=60, dt=0.3), 2),
    (load_scenario("paper-spike", steps=60), 3),
    (load_scenario("steady", steps=40), 4),
    (load_scenario("steady", steps=40).model_copy(update={"routing": ((0, 0.3, 0, 0.2),) * 4}), 5),
]


@pytest.mark.parametrize(("scenario", "seed"), CASES)
def test_latencies_and_goodput_agree_with_a_count_request_by_request(scenario, seed):
    batch = played(scenario, restless(seed), seed)
    metrics = episode_metrics(batch, 0)
    everyone, leaving = [], []
    for i, (name, agent) in enumerate(metrics["per_agent"].items()):
        times, left = brute_force(batch, 0, i)
        everyone.append(times)
        leaving.append(left)
        if len(times) == 0:
            assert math.isnan(agent["latency_mean_s"]), name
            continue
        slo = scenario.agents[i].slo_s
        on_time = times[left & (times[:, 0] <= slo), 1].sum()
        compare(agent, times, on_time, times[~left, 1].sum(), scenario)
    times, left = np.concatenate(everyone), np.concatenate(leaving)
    slos = np.concatenate([np.full(len(t), a.slo_s) for t, a in zip(everyone, scenario.agents, strict=True)])
    on_time = times[left & (times[:, 0] <= slos), 1].sum()
    compare(metrics, times, on_time, times[~left, 1].sum(), scenario)


def compare(metrics, times, on_time, unfinished, scenario):
    span = scenario.steps * scenario.dt
    total = times[:, 1].sum()
    # Parts of 1/40 request: counts are known to a few parts, times to the width of a few of them.
    assert metrics["arrived"] == pytest.approx(total)
    assert metrics["unfinished"] == pytest.approx(unfinished, abs=0.5)
    assert metrics["backlog_end"] == metrics["unfinished"]
    assert metrics["throughput_rps"] * span == pytest.approx(total - unfinished, abs=0.5)
    assert metrics["goodput_rps"] * span == pytest.approx(on_time, abs=0.5 + 0.002 * total)
    mean = (times[:, 0] * times[:, 1]).sum() / total
    assert metrics["latency_mean_s"] == pytest.approx(mean, rel=0.005, abs=0.005)
    for name, probability in (
        ("latency_p50_s", 0.50),
        ("latency_p95_s", 0.95),
        ("latency_p99_s", 0.99),
    ):
        # A quantile in a gap of the distribution is any time in the gap.
        nearby = [weighted_quantile(times, min(1, max(0, probability + shift))) for shift in (-0.003, 0.003)]
        assert nearby[0] - 0.02 <= metrics[name] <= nearby[1] + 0.02, name


@pytest.mark.parametrize(("scenario", "seed"), CASES)
def test_the_share_within_the_objective_is_one_less_those_counted_late(scenario, seed):
    batch = played(scenario, restless(seed), seed)
    metrics = episode_metrics(batch, 0)
    late, total = 0.0, 0.0
    for i, agent in enumerate(metrics["per_agent"].values()):
        times, left = brute_force(batch, 0, i)
        slo = scenario.agents[i].slo_s
        # A request that has not left at the age of its objective is late, be it at the very end.
        passed = (times[:, 0] > slo) | (~left & (times[:, 0] >= slo - 1e-9))
        counted = batch.history["late"][0, :, i].sum()
        assert counted == pytest.approx(times[passed, 1].sum(), abs=0.5 + 0.002 * times[:, 1].sum())
        if len(times):
            assert agent["slo_attainment"] == pytest.approx(1 - counted / times[:, 1].sum())
        late, total = late + counted, total + times[:, 1].sum()
    assert metrics["slo_attainment"] == pytest.approx(1 - late / total)


def test_littles_law_gives_the_mean_of_uniform_waits():
    # 10 leave evenly within the first second: half a second in the mean, a quantile per tenth.
    metrics = single_wave(one_agent(), 10, [1, 0, 0, 0])
    assert metrics["latency_mean_s"] == pytest.approx(0.5)
    assert metrics["latency_p50_s"] == pytest.approx(0.5)
    assert metrics["latency_p95_s"] == pytest.approx(0.95)
    assert metrics["latency_p99_s"] == pytest.approx(0.99)
    assert metrics["throughput_rps"] == 2.5 and metrics["slo_attainment"] == 1


def test_a_wait_before_service_adds_to_every_request():
    metrics = single_wave(one_agent(), 10, [0, 0, 0.5, 0.5])
    assert metrics["latency_mean_s"] == pytest.approx(3)
    assert metrics["latency_p50_s"] == pytest.approx(3) and metrics["latency_p95_s"] == pytest.approx(3.9)


def test_what_has_not_left_counts_with_its_age():
    # Five leave within the first second, five are four seconds old in the end.
    metrics = single_wave(one_agent(slo_s=3), 10, [0.5, 0, 0, 0])
    assert metrics["unfinished"] == 5 and metrics["backlog_end"] == 5
    assert metrics["latency_mean_s"] == pytest.approx((5 * 0.5 + 5 * 4) / 10)
    assert metrics["latency_p95_s"] == pytest.approx(4) and metrics["latency_p99_s"] == pytest.approx(4)
    assert metrics["slo_attainment"] == pytest.approx(0.5)
    assert metrics["goodput_rps"] == pytest.approx(5 / 4)


@pytest.mark.parametrize("steps", [6, 10])
def test_the_median_of_an_even_number_is_the_earlier_of_the_two_in_the_middle(steps):
    agent = Agent(name="a", model_mb=0, throughput_rps=10)
    traffic = Traffic(law="constant", rates_rps=(1.0,))
    batch = started(Scenario(name="a", agents=(agent,), traffic=traffic, steps=steps, dt=0.05), record=True)
    for _ in range(steps):
        batch.step(np.zeros((1, 1)))
    # Nothing leaves, so that the ages are the multiples of dt.
    assert episode_metrics(batch, 0)["latency_p50_s"] == pytest.approx(steps / 2 * 0.05)


def test_requests_still_within_their_objective_are_no_goodput():
    metrics = single_wave(one_agent(slo_s=30), 10, [0.5, 0, 0, 0])
    assert metrics["slo_attainment"] == 1 and metrics["goodput_rps"] == pytest.approx(5 / 4)


def test_goodput_leaves_out_what_leaves_too_late():
    metrics = single_wave(one_agent(slo_s=0.25), 10, [1, 0, 0, 0])
    assert metrics["throughput_rps"] == 2.5 and metrics["goodput_rps"] == pytest.approx(2.5 / 4)
    assert metrics["slo_attainment"] == pytest.approx(0.25)


def test_a_single_agents_mean_wait_is_that_of_queueing_theory():
    # M/D/1 with service time 0.1 s at ρ = 0.8: Pollaczek and Khinchine's wait of 0.2 s in the queue.
    # A fluid leaves while it is served, so half of the service time comes on top: 0.25 s.
    scenario = one_agent(rate=8, base=10, steps=20_000, dt=0.1, law="poisson")
    batch = started(scenario, 40)
    for _ in range(scenario.steps):
        batch.step(np.ones((40, 1)))
    latencies = batch.totals["latency"] / scenario.steps
    assert latencies.mean() == pytest.approx(0.25, rel=0.03)


def test_metrics_of_requests_are_undefined_without_requests():
    agents = tuple(Agent(name=name, model_mb=0, throughput_rps=10) for name in ("busy", "idle"))
    traffic = Traffic(law="constant", rates_rps=(5, 0))
    batch = played(Scenario(name="half", agents=agents, traffic=traffic, steps=3), lambda t, view: [1, 0])
    metrics = episode_metrics(batch, 0)
    idle = metrics["per_agent"]["idle"]
    assert all(math.isnan(idle[name]) for name in ("latency_mean_s", "latency_p99_s", "slo_attainment"))
    assert idle["throughput_rps"] == 0 and idle["unfinished"] == 0
    assert metrics["slo_attainment"] == 1 and metrics["fairness_jain"] == 1


def test_money_and_gpu_time_by_hand():
    batch = played(one_agent(rate=5, steps=10), lambda t, view: [0.8])
    metrics = episode_metrics(batch, 0)
    assert metrics["gpu_seconds"] == pytest.approx(8)
    # 5 of 8 requests that 0.8 GPU could serve.
    assert metrics["gpu_utilisation"] == pytest.approx(5 / 8)
    assert metrics["cost_usd"] == pytest.approx(8 * 0.72 / 3600)
    assert metrics["cost_usd_per_1k"] == pytest.approx(1000 * 8 * 0.72 / 3600 / 50)


def test_fairness_is_jains_index_of_the_fractions_served():
    agents = tuple(Agent(name=name, model_mb=0, throughput_rps=10) for name in "ab")
    scenario = Scenario(
        name="two", agents=agents, traffic=Traffic(law="constant", rates_rps=(10, 10)), steps=1
    )
    for shares, fairness in (((0.5, 0.5), 1), ((1, 0), 0.5), ((0.75, 0.25), 1 / (2 * 0.625))):
        metrics = episode_metrics(played(scenario, lambda t, view, shares=shares: shares), 0)
        assert metrics["fairness_jain"] == pytest.approx(fairness)


def test_reallocations_and_cold_starts_are_counted():
    agents = tuple(Agent(name=name, model_mb=1000, throughput_rps=10) for name in "ab")
    scenario = Scenario(
        name="switching",
        agents=agents,
        platform=Platform(keep_alive_s=2, load_mb_per_s=1000, reallocation_s=0.1, deadband=0.02),
        traffic=Traffic(law="constant", rates_rps=(1, 1)),
        steps=8,
    )
    # Each change gives one agent a share; after two steps without one its model is gone.
    shares = [(1, 0), (1, 0), (0, 1), (0, 1), (1, 0), (1, 0), (0.99, 0), (0.5, 0.5)]
    metrics = episode_metrics(played(scenario, lambda t, view: shares[t]), 0)
    assert metrics["reallocations"] == 1 + 1 + 2
    assert metrics["cold_starts"] == 3


def test_min_share_shortfall_is_the_mean_of_its_term():
    batch = played(one_agent(min_share=0.5, steps=2), lambda t, view: [0.25 if t else 0.5])
    assert episode_metrics(batch, 0)["min_share_shortfall"] == pytest.approx(0.25)


def test_the_objective_is_minus_the_mean_reward():
    batch = played(load_scenario("serverless", steps=20), restless(0))
    total = batch.totals[0]["latency"] + 0.2 * batch.totals[0]["cost"] - 0.2 * batch.totals[0]["throughput"]
    assert episode_metrics(batch, 0)["objective"] == pytest.approx(total / 20)


def test_the_papers_estimators_by_hand():
    metrics = single_wave(one_agent(steps=2), 10, [0.5, 0])
    # 5 wait after the first step at a nominal 5 per second; then no share: 999 s.
    assert metrics["paper_latency_s"] == pytest.approx((1 + 999) / 2)
    assert metrics["paper_throughput_rps"] == 2.5
    assert metrics["paper_latency_std_s"] == 0


def test_totals_are_sums_over_the_agents():
    metrics = episode_metrics(played(load_scenario("serverless", steps=20), restless(2)), 0)
    for name in ("throughput_rps", "goodput_rps", "backlog_end", "unfinished", "arrived"):
        assert metrics[name] == pytest.approx(sum(agent[name] for agent in metrics["per_agent"].values()))


def test_environments_of_a_batch_have_their_own_metrics():
    scenario = load_scenario("serverless", steps=15)
    batch = played(scenario, lambda t, view: np.full((3, 4), 0.25), num_envs=3)
    alone = played(scenario, lambda t, view: np.full((1, 4), 0.25), seed=2)
    np.testing.assert_equal(episode_metrics(batch, 2), episode_metrics(alone, 0))


def test_metrics_need_a_recorded_episode():
    batch = Batch(load_scenario("paper"), 1)
    with pytest.raises(ValueError, match="record=True"):
        episode_metrics(batch, 0)


@pytest.mark.parametrize("name", ["serverless", "workflow"])
def test_metrics_of_some_steps_are_those_of_an_episode_that_ends_there(name):
    scenario = load_scenario(name, steps=12)
    batch = Batch(scenario, 1, record=True)
    batch.seed(3)
    batch.reset()
    for _ in range(5):
        batch.step(np.full((1, 4), 0.2))
    short = Batch(load_scenario(name, steps=5), 1, record=True)
    short.reset()
    for array, whole in ((short.arrivals, batch.arrivals), (short.inflows, batch.inflows)):
        array[...] = whole[:6]
    for now, then in ((short.state, batch.state), (short.history, batch.history[:, :5])):
        now[...] = then
    short.world.episode[:], short.clock[:], short.worth[:] = batch.world.episode, batch.clock, batch.worth
    np.testing.assert_equal(episode_metrics(batch, 0), episode_metrics(short, 0))


def test_the_record_holds_rows_that_add_up():
    batch = played(load_scenario("serverless", steps=15), restless(0))
    history = batch.history[0]
    queue = np.cumsum(history["arrivals"], axis=0) - np.cumsum(history["served"], axis=0)
    assert history["queue"] == pytest.approx(queue, abs=1e-9)
    assert (history["served"] <= history["capacity"]).all()
    assert (history["backlog"] >= history["queue"] - 1e-9).all()
    assert (history["share"].sum(axis=1) <= 1 + 1e-12).all()


def test_a_tasks_time_is_that_of_all_its_visits_and_the_way_between():
    agents = tuple(Agent(name=name, model_mb=0, throughput_rps=4) for name in ("first", "second"))
    scenario = Scenario(
        name="tandem",
        agents=agents,
        traffic=Traffic(law="constant", rates_rps=(1, 0)),
        routing=((0, 1), (0, 0)),
        steps=2,
    )
    batch = started(scenario, record=True)
    batch.arrivals[1:] = 0
    for _ in range(2):
        batch.step(np.array([[0.5, 0.5]]))
    metrics = episode_metrics(batch, 0)
    # Half a GPU serves 2 requests/s: the one request leaves over [0, 0.5] s, waits for the next step
    # until 1 s, and leaves the second agent over [1, 1.5] s.
    assert metrics["task_latency_mean_s"] == pytest.approx(0.25 + 0.75 + 0.25)
    assert metrics["latency_mean_s"] == pytest.approx(0.25)


def test_the_time_of_a_task_that_visits_one_agent_is_its_sojourn():
    metrics = episode_metrics(played(load_scenario("serverless", steps=50), restless(0)), 0)
    assert metrics["task_latency_mean_s"] == pytest.approx(metrics["latency_mean_s"])


def test_requests_of_a_workflow_spend_less_time_at_one_agent_than_their_task_in_all():
    batch = played(load_scenario("workflow", steps=100), lambda t, view: [[0.25] * 4])
    metrics = episode_metrics(batch, 0)
    visits = batch.history["served"].sum() / batch.history["arrivals"].sum()
    assert metrics["task_latency_mean_s"] > visits * metrics["latency_mean_s"]
