"""Servers of calls: hand calculations, invariants, and a SimPy model of the same tasks."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.call_episodes import call_times, played, replayed_tasks, scenario_of, server, tasks_of
from support.episodes import bits, started

from gpualloc_env import Platform, load_scenario
from training.validation.simpy_calls import simulate

REGISTERED = ("llm", "team", "magentic")


def test_prefill_goes_on_at_the_share_and_one_call_after_the_other():
    scenario = scenario_of(server())
    tasks = tasks_of((0.25, [(0, 0, 1, 1, 0)]), (0.5, [(0, 0, 2, 1, 0)]))
    batch, times = played(scenario, tasks, [0.5])
    # A token takes two seconds on half a GPU.
    np.testing.assert_allclose(times, [[0.25, 2.25, 2.25], [0.5, 6.25, 6.25]])
    assert batch.history["served"][0, :, 0].tolist() == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert batch.history["queue"][0, :3, 0].tolist() == [2, 2, 1]
    # 0.75 + 0.5 of the first second; in the third 0.25 of two calls and 0.75 of one.
    np.testing.assert_allclose(batch.history["backlog"][0, :3, 0], [1.25, 2.0, 1.25])
    # An objective of two seconds: the first passes it at 2.25 s as it ends, the second at 2.5 s.
    assert batch.history["late"][0, :, 0].sum() == 1 and batch.history["late"][0, 2, 0] == 1
    assert batch.history["capacity"][0, 0, 0] == pytest.approx(0.5)


def test_a_batch_shares_one_rate_and_stands_still_during_a_prefill():
    agent = server(iteration_s=1.0, iteration_s_per_call=0.5, prefill_s_per_token=1.0, max_batch=4)
    scenario = scenario_of(agent, steps=12)
    tasks = tasks_of((0.0, [(0, 0, 0, 3, 0)]), (1.5, [(0, 0, 1, 2, 0)]))
    _, times = played(scenario, tasks, [1.0])
    # Alone a token takes 1.5 s: at 1.5 s one of two is left. Prefill until 2.5 s, then 2 s a token.
    np.testing.assert_allclose(times, [[0, 0, 4.5], [1.5, 2.5, 4.5]])


def test_decoding_gains_by_the_throughput_curve():
    agent = server(iteration_s=1.0, prefill_s_per_token=0.0, max_batch=1, kappa=1.0)
    _, times = played(scenario_of(agent), tasks_of((0.0, [(0, 0, 5, 3, 0)])), [0.5])
    # f(1/2) = (1/2)(2)/(3/2) = 2/3, so a token takes 1.5 s.
    np.testing.assert_allclose(times[0], [0, 0, 3.0])


def test_a_call_without_room_waits_and_those_behind_it_too():
    agent = server(iteration_s=1.0, prefill_s_per_token=0.0, max_batch=8, kv_tokens=10)
    tasks = tasks_of(
        (0.0, [(0, 0, 5, 3, 0)]),  # 8 of the 10 tokens, until 2 s
        (0.1, [(0, 0, 1, 2, 0)]),  # does not fit
        (0.2, [(0, 0, 0, 1, 0)]),  # would fit, but waits behind it
    )
    _, times = played(scenario_of(agent), tasks, [1.0])
    np.testing.assert_allclose(times, [[0, 0, 2], [0.1, 2, 3], [0.2, 2, 2]])


def test_stages_follow_each_other_after_their_tools():
    agents = (server("first"), server("second"), server("third"))
    calls = [(0, 0, 1, 1, 0.5), (1, 1, 1, 1, 0), (2, 1, 2, 1, 0.25), (0, 2, 0, 1, 0)]
    batch, times = played(scenario_of(*agents), tasks_of((0.5, calls)), [1 / 3] * 3)
    np.testing.assert_allclose(times[:, 0], [1.0, 2.0, 2.25, 4.25])
    np.testing.assert_allclose(times[:, 2], [2.0, 3.0, 4.25, 4.25])
    assert batch.service.tasks["finished"][0, 0] == 4.25
    # In the system from its arrival to its end.
    assert batch.totals["task"][0] * batch.scenario.dt == pytest.approx(3.75 * 10 / 1)
    assert batch.history["arrivals"][0].sum() == 1 and batch.inflows.sum() == 4


def test_nothing_moves_before_a_change_of_share_is_paid_and_without_a_share():
    agent = server(model_mb=100)
    platform = Platform(gpus=1, reallocation_s=0.25, keep_alive_s=1, load_mb_per_s=200)
    scenario = scenario_of(agent, platform=platform, steps=6)
    batch = replayed_tasks(
        scenario, tasks_of((0.0, [(0, 0, 1, 1, 0)]), (1.0, [(0, 0, 1, 1, 0)])), record=True
    )
    for share in (0.5, 1.0, 0.0, 1.0, 1.0):
        batch.step(np.array([[share]]))
    # Half a token in the first second; from 1.25 s on the other half, and a quarter of the second call. Idle
    # for a second, the model is unloaded: half a second to load and a quarter for the change.
    np.testing.assert_allclose(call_times(batch)[:, 2], [1.75, 4.5])
    assert batch.history["delay"][0, :5, 0].tolist() == [0, 0.25, 0, 0.75, 0]
    assert batch.history["cold_start"][0, :, 0].tolist() == [0, 0, 0, 1, 0, 0]


def test_what_a_policy_sees_of_a_server():
    agent = server(
        iteration_s=0.01, iteration_s_per_call=0.01, prefill_s_per_token=1e-4, max_batch=2, kv_tokens=400
    )
    calls = [(0.0, [(0, 0, 100, 50, 0)])] * 2 + [(0.5, [(0, 0, 200, 50, 0)])]
    batch = replayed_tasks(scenario_of(agent), tasks_of(*calls), record=True)
    assert batch.view.queue[0, 0] == batch.view.waiting[0, 0] == 0
    batch.step(np.array([[0.0]]))
    # Without a share the first is in prefill and stays there.
    view = batch.view
    assert (view.queue[0, 0], view.waiting[0, 0], view.running[0, 0]) == (3, 2, 0)
    assert view.prefill[0, 0] == pytest.approx(0.03) and view.kv_used[0, 0] == pytest.approx(150 / 400)
    assert (view.oldest_age[0, 0], view.inflow[0, 0], view.rate[0, 0]) == (1.0, 3.0, 3.0)
    batch.step(np.array([[0.015]]))
    assert (view.running[0, 0], view.waiting[0, 0]) == (0.5, 1)
    row = dict(zip(batch_features(), batch.observation[0, 0], strict=True))
    assert row["running"] == 0.5 and row["waiting"] == 0.5 and row["batch_slope"] == 0.5
    assert row["iteration"] == 0.5 and row["prefill_per_token"] == pytest.approx(0.5)


def batch_features():
    from gpualloc_env import OBSERVATION_FEATURES

    return OBSERVATION_FEATURES


def test_the_columns_of_servers_are_zero_in_the_fluid():
    batch = started(load_scenario("serverless", steps=20), 2)
    for _ in range(20):
        batch.step(np.full((2, 4), 0.2))
        assert not batch.observation[..., 19:].any() and not batch.worth["task"].any()


def random_actions(scenario, seed):
    """Fractions that are held for some steps and sometimes zero, (T, N)."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(len(scenario.agents)), scenario.steps)
    rows[rng.random(rows.shape) < 0.2] = 0.0
    held = np.arange(scenario.steps) // 5 * 5
    return rows[held]


def against_simpy(scenario, batch, b=0):
    """Largest difference of any time of any call from the SimPy model's."""
    history, dt = batch.history[b], scenario.dt

    def share_of(name, now):
        i = scenario.agent_names.index(name)
        k = min(int((now + 1e-9) / dt), scenario.steps - 1)
        start = k * dt + history["delay"][k, i]
        if now < start - 1e-12:
            return 0.0, min(start, (k + 1) * dt)
        return history["share"][k, i], (k + 1) * dt

    expected = np.array(simulate(scenario.agents, batch.tasks(b), share_of, scenario.steps * dt))
    times = call_times(batch, b)
    # What falls on the very end of the episode is on either side of it.
    near = np.isfinite(expected) != np.isfinite(times)
    assert (np.minimum(expected, times)[near] > scenario.steps * dt - 1e-6).all()
    both = np.isfinite(expected) & np.isfinite(times)
    return np.abs(expected[both] - times[both]).max(initial=0.0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", REGISTERED)
def test_every_call_agrees_with_a_simpy_model(name, seed):
    scenario = load_scenario(name, steps=120)
    batch = started(scenario, 1, seed, record=True)
    for action in random_actions(scenario, seed):
        batch.step(action[None])
    assert against_simpy(scenario, batch) < 1e-6


@st.composite
def cases(draw):
    """Some servers, their tasks and the shares that a policy asks for."""
    count = draw(st.integers(1, 4))
    agents = tuple(
        server(
            f"agent-{i}",
            iteration_s=draw(st.sampled_from([1e-4, 0.01, 0.2])),
            iteration_s_per_call=draw(st.sampled_from([0.0, 0.01, 0.1])),
            prefill_s_per_token=draw(st.sampled_from([0.0, 0.003, 0.05])) + 1e-6,
            max_batch=draw(st.integers(1, 5)),
            kv_tokens=draw(st.integers(40, 90)),
            prompt_tokens=5,
            output_tokens=5,
            kappa=draw(st.sampled_from([None, 0.5])),
            model_mb=draw(st.sampled_from([0, 500])),
            slo_s=draw(st.sampled_from([0.3, 2.0])),
        )
        for i in range(count)
    )
    steps, dt = draw(st.integers(1, 25)), draw(st.sampled_from([0.1, 0.5, 1.0]))
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    tasks = []
    for time in np.sort(rng.uniform(0, steps * dt, rng.integers(1, 60))):
        calls = []
        for stage in range(rng.integers(1, 4)):
            for _ in range(rng.integers(1, 4)):
                after_s = rng.choice([0.0, rng.exponential(0.3)])
                calls.append(
                    (rng.integers(count), stage, rng.integers(0, 20), 1 + rng.geometric(0.1) % 20, after_s)
                )
        tasks.append((time, calls))
    platform = Platform(
        gpus=draw(st.sampled_from([0.5, 1.0, 3.0])),
        reallocation_s=draw(st.sampled_from([0.0, 0.1, 2.0])),
        deadband=0.02,
        container_start_s=draw(st.sampled_from([0.0, 0.4])),
        load_mb_per_s=1000,
        keep_alive_s=draw(st.sampled_from([0.0, 1.0, float("inf")])),
    )
    scenario = scenario_of(*agents, steps=steps, dt=dt, platform=platform, warm=draw(st.booleans()))
    return scenario, tasks_of(*tasks), random_actions(scenario, seed)


def in_order_of_issue(batch, i):
    """Calls of agent i in the order in which they were issued, those of one moment in theirs."""
    calls, order = batch.service.calls[0], []
    own = np.flatnonzero((batch.tasks(0).agent == i) & np.isfinite(call_times(batch)[:, 0])).tolist()
    first = set(own).difference(calls["next"][own].tolist())
    assert len(first) == min(1, len(own))
    while len(order) < len(own):
        order.append(int(calls["next"][order[-1]]) if order else first.pop())
    return order


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_whatever_the_tasks_nothing_is_lost_and_the_queue_is_first_in_first_out(case):
    scenario, tasks, actions = case
    batch = replayed_tasks(scenario, tasks, record=True)
    dt, agents = scenario.dt, batch.agents[0]
    issued, served = np.zeros(len(scenario.agents)), np.zeros(len(scenario.agents))
    waited = np.zeros(len(scenario.agents))
    for t, action in enumerate(actions):
        batch.step(action[None])
        outcome, servers = batch.outcome[0], batch.service.servers[0]
        issued += batch.inflows[t, 0]
        served += outcome["served"]
        waited += outcome["backlog"] * dt
        assert (issued == served + outcome["queue"]).all()
        assert (servers["kv_in_use"] <= agents["kv_tokens"]).all() and (servers["kv_in_use"] >= 0).all()
        assert (servers["running"] <= agents["max_batch"]).all()
        in_prefill = servers["in_prefill"] >= 0
        ledgers = batch.service.ledgers[0]
        assert (ledgers["calls"] == servers["running"] + servers["waiting"] + in_prefill).all()
        assert (ledgers["waiting"] == servers["waiting"]).all()
    end, times = scenario.steps * dt, call_times(batch)
    for i in range(len(scenario.agents)):
        own = times[(batch.tasks(0).agent == i) & np.isfinite(times[:, 0])]
        # Little's law, whatever is unfinished.
        sojourns = np.minimum(own[:, 2], end) - own[:, 0]
        assert waited[i] == pytest.approx(sojourns.sum(), rel=1e-9, abs=1e-9)
        assert batch.history["late"][0, :, i].sum() == (sojourns > agents["slo"][i]).sum()
        queue = times[in_order_of_issue(batch, i)]
        assert len(queue) == len(own) and (np.diff(queue[:, 0]) >= 0).all()
        started_at = queue[np.isfinite(queue[:, 1]), 1]
        assert (np.diff(started_at) >= 0).all()
    spent = np.minimum(batch.service.tasks["finished"][0, : len(tasks.time)], end) - tasks.time
    assert batch.totals["task"][0] * dt * (len(tasks.time) / end) == pytest.approx(spent.sum(), rel=1e-9)
    assert against_simpy(scenario, batch) < 1e-6


@pytest.mark.parametrize("name", REGISTERED)
def test_the_length_of_a_step_changes_no_call(name):
    frictionless = {"reallocation_s": 0.0}
    base = load_scenario(name, steps=100)
    base = base.model_copy(update={"platform": base.platform.model_copy(update=frictionless)})
    ends = []
    for steps, dt in ((100, 1.0), (1000, 0.1), (37, 100 / 37)):
        scenario = base.model_copy(update={"steps": steps, "dt": dt})
        batch = started(scenario, 1, 3, record=True)
        for _ in range(steps):
            batch.step(np.full((1, 4), 0.25))
        ends.append((batch.tasks(0), call_times(batch)))
    for tasks, times in ends[1:]:
        for column, expected in zip(tasks, ends[0][0], strict=True):
            np.testing.assert_allclose(column, expected, atol=1e-9)
        both = np.isfinite(times) & np.isfinite(ends[0][1])
        assert (np.isfinite(times) != np.isfinite(ends[0][1])).sum() == 0
        np.testing.assert_allclose(times[both], ends[0][1][both], atol=1e-6)


@pytest.mark.parametrize("name", REGISTERED)
def test_an_environment_plays_the_same_alone_and_in_a_batch(name):
    scenario = load_scenario(name, steps=30)
    whole = started(scenario, 5, 8, record=True)
    singles = [started(scenario, 1, 8 + k, record=True) for k in range(5)]
    for episode in range(3):
        for action in random_actions(scenario, episode):
            whole.step(np.tile(action, (5, 1)))
            for k, single in enumerate(singles):
                single.step(action[None])
                assert bits(whole.state[k]) == bits(single.state[0])
                assert bits(whole.outcome[k]) == bits(single.outcome[0])
                assert bits(whole.worth[k]) == bits(single.worth[0])
                assert whole.observation[k].tobytes() == single.observation[0].tobytes()
        for k, single in enumerate(singles):
            assert (call_times(whole, k) == call_times(single)).all()
            single.reset()
        # Two at a time: those that wait must not notice that rows grow.
        for mask in ([1, 0, 1, 0, 0], [0, 1, 0, 1, 1]):
            whole.reset(np.array(mask, dtype=np.bool_))


def test_a_copy_and_a_pickle_go_on_alike():
    batch = started(load_scenario("team", steps=40), 2, 1)
    actions = random_actions(batch.scenario, 0)
    for action in actions[:20]:
        batch.step(np.tile(action, (2, 1)))
    others = [copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))]
    for action in actions[20:]:
        batch.step(np.tile(action, (2, 1)))
    for other in others:
        for action in actions[20:]:
            other.step(np.tile(action, (2, 1)))
        assert bits(other.state) == bits(batch.state) and bits(other.totals) == bits(batch.totals)
