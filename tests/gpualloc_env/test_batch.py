import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.episodes import bits, started, table

from gpualloc_env import (
    OBSERVATION_FEATURES,
    SCENARIOS,
    Agent,
    Batch,
    Objective,
    Platform,
    Scenario,
    Surge,
    Traffic,
    View,
    load_scenario,
)
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.env import GPUAllocEnv
from gpualloc_env.metrics import objectives
from gpualloc_env.simulation.observation import ARRAY_FIELDS, SETTING_FIELDS
from gpualloc_env.simulation.state import (
    AGENT,
    INFO,
    OBSERVATION,
    OUTCOME,
    SETTINGS,
    STATE,
    TERMS,
    WORTH,
)
from gpualloc_env.vector_env import GPUAllocVectorEnv

STEPS = 5
CALLS = 3 * (STEPS + 1) + 2  # three autoresets and a little of the fourth episode
SEED = 20260101
LARGEST = 1024

BUSY = Scenario(
    name="busy",
    agents=tuple(
        Agent(
            name=f"agent-{i}",
            model_mb=500 * i,
            throughput_rps=20 + 30 * i,
            min_share=0.1 * i,
            priority=1 + i % 3,
            kappa=None if i == 1 else 0.5,
            slo_s=1 + i,
        )
        for i in range(4)
    ),
    platform=Platform(
        reallocation_s=0.1, deadband=0.02, container_start_s=1, load_mb_per_s=1000, keep_alive_s=2
    ),
    traffic=Traffic(rates_rps=(5, 10, 3, 20)),
    routing=((0, 0.5, 0.2, 0), (0.3, 0, 0, 0), (0, 0, 0.5, 0.25), (0.1, 0, 0, 0)),
    steps=25,
)


def actions_of(agents):
    """Fractions for every call, environment and agent, the extremes 0 and 1 among them."""
    drawn = np.random.default_rng(7).uniform(-0.2, 0.7, (CALLS, LARGEST, agents))
    return np.clip(drawn, 0, 1).astype(np.float32)


def play_single(arguments, k, actions):
    """The trajectory of the single environment seeded SEED + k, resetting after each episode."""
    env = gym.make("GPUAlloc-v0", steps=STEPS, **arguments)
    trajectory = [(env.reset(seed=SEED + k)[0], 0.0, False, {})]
    over = False
    for action in actions[:, k]:
        if over:
            trajectory.append((env.reset()[0], 0.0, False, {}))
            over = False
        else:
            observation, reward, _, over, info = env.step(action)
            trajectory.append((observation, reward, over, info))
    return trajectory


def snapshot(batch):
    """All that an environment is, shows and has done."""
    kept = [array for name, array in batch.world._asdict().items() if name != "history"]
    return [bits(array) for array in (*kept, batch.info, batch.observation)]


@pytest.mark.parametrize("name", SCENARIOS)
def test_env_k_of_a_batch_is_the_single_env_with_seed_plus_k_bit_for_bit(name, scenario_arguments):
    arguments = scenario_arguments[name]
    agents = len(load_scenario(**arguments).agents)
    actions = actions_of(agents)
    singles = {}
    for size in (1, 2, 7, 64, LARGEST):
        env = GPUAllocVectorEnv(size, steps=STEPS, **arguments)
        sample = sorted({0, 1, size // 2, size - 1} & set(range(size)))
        for k in sample:
            if k not in singles:
                singles[k] = play_single(arguments, k, actions)
        observation, _ = env.reset(seed=SEED)
        for k in sample:
            assert observation[k].tobytes() == singles[k][0][0].tobytes()
        for call in range(CALLS):
            observation, reward, terminated, truncated, info = env.step(actions[call, :size])
            assert not terminated.any()
            for k in sample:
                expected = singles[k][call + 1]
                assert observation[k].tobytes() == expected[0].tobytes()
                assert (reward[k], truncated[k]) == (expected[1], expected[2])
                for array in INFO if expected[3] else ():
                    assert info[array][k].tobytes() == expected[3][array].tobytes()
                for term in (*TERMS, "objective") if expected[3] else ():
                    assert info[term][k] == expected[3][term]


@pytest.mark.parametrize("name", SCENARIOS)
def test_one_seed_gives_the_same_bits_twice_and_another_seed_other_arrivals(name, scenario_arguments):
    scenario = load_scenario(**scenario_arguments[name], steps=STEPS)
    first, second, other = (started(scenario, 3, seed) for seed in (11, 11, 12))
    actions = actions_of(first.num_agents)
    for call in range(STEPS):
        first.step(actions[call, :3])
        second.step(actions[call, :3])
    assert snapshot(first) == snapshot(second)
    constant = scenario.traffic is not None and scenario.traffic.law == "constant"
    assert constant == (first.arrivals == other.arrivals).all()


def test_an_environment_does_not_feel_its_neighbours():
    alone, crowded = started(BUSY, 1, 5), started(BUSY, 3, 5)
    for action in actions_of(4)[:, :3]:
        alone.step(action[:1])
        crowded.step(np.concatenate([action[:1], np.ones((2, 4))]))
        assert alone.state[0].tobytes() == crowded.state[0].tobytes()


@pytest.mark.parametrize("name", ["serverless", "paper", "team", BUSY])
def test_copies_of_an_environment_go_on_as_it_does(name):
    scenario = load_scenario(name, steps=12)
    one, copies = started(scenario, 1, 5), Batch(scenario, 3)
    actions = actions_of(4)[:, :1]
    for action in actions[:6]:
        one.step(action)
    copies.become(one)
    assert (copies.observation == one.observation).all() and (copies.info == one.info).all()
    for action in actions[6:12]:
        one.step(action)
        copies.step(np.repeat(action, 3, axis=0))
        assert copies.state.tobytes() == np.repeat(one.state, 3, axis=0).tobytes()
        assert copies.totals.tobytes() == np.repeat(one.totals, 3, axis=0).tobytes()


def test_copies_need_one_environment_of_the_same_scenario():
    two, other = started(BUSY, 2), started(load_scenario("paper"), 1)
    for wrong in (two, other):
        with pytest.raises(ValueError, match="copies need a batch of one environment of"):
            Batch(BUSY, 3).become(wrong)


def test_a_batch_of_clusters_takes_no_copies():
    scenario = load_scenario("cluster-small", steps=5)
    with pytest.raises(ValueError, match=r"'cluster-small' is a cluster, .* use copy\.deepcopy of the other"):
        ClusterBatch(scenario, 2).become(ClusterBatch(scenario, 1))


def test_a_refused_step_of_some_environments_changes_nothing():
    batch = started(BUSY, 3)
    batch.step(np.full((3, 4), 0.2))
    before = batch.reward, batch.info.copy()
    with pytest.raises(ValueError, match="is NaN in environment 1"):
        batch.step(np.full((3, 4), np.nan), np.array([False, True, True]))
    assert (batch.reward == before[0]).all() and before[0].all() and (batch.info == before[1]).all()


def test_environments_left_out_of_a_step_do_not_change():
    batch = started(BUSY, 3)
    batch.step(np.full((3, 4), 0.2))

    def second():
        arrays = (batch.state, batch.outcome, batch.totals, batch.clock, batch.observation)
        return [array[1].tobytes() for array in (*arrays, batch.info, objectives(batch))]

    before = second()
    batch.step(np.ones((3, 4)), np.array([True, False, True]))
    assert before == second() and batch.reward[1] == 0
    assert batch.clock.tolist() == [2, 1, 2]
    batch.reset(np.array([False, True, False]))
    assert (objectives(batch) != 0).tolist() == [True, False, True]


FLUID = [name for name, scenario in SCENARIOS.items() if scenario.service == "fluid"]


@pytest.mark.parametrize("name", [*FLUID, "busy"])
def test_what_arrived_was_served_or_waits_at_every_step(name, scenario_arguments):
    scenario = BUSY if name == "busy" else load_scenario(**scenario_arguments[name], steps=20)
    batch = started(scenario, 4, 3)
    actions = np.random.default_rng(0).uniform(0, 1, (scenario.steps, 4, batch.num_agents))
    served = np.zeros((4, batch.num_agents))
    entered = batch.arrivals[0, :4].copy()
    for t, action in enumerate(actions):
        batch.step(action)
        outcome = batch.outcome
        served += outcome["served"]
        assert served + outcome["queue"] == pytest.approx(entered, rel=1e-6, abs=1e-9)
        entered += batch.arrivals[t + 1, :4]
        if scenario.routing is not None:
            entered += outcome["served"] @ np.array(scenario.routing)
        assert batch.state["queue"] == pytest.approx(entered - served, rel=1e-6, abs=1e-6)
        assert (outcome["share"].sum(axis=1) <= scenario.platform.gpus * (1 + 1e-12)).all()
        assert (outcome["share"] <= scenario.platform.max_share).all()
        assert (table(batch.state) >= 0).all()


asked = st.one_of(
    st.floats(0, 1),
    st.sampled_from([float("inf"), float("-inf"), -1.0, 1e30, 1e308, 5e-324, 0.0, 1.0]),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    name=st.sampled_from([name for name, scenario in SCENARIOS.items() if not scenario.trace]),
    rows=st.lists(st.lists(asked, min_size=64, max_size=64), min_size=1, max_size=3),
    seed=st.integers(0, 2**64),
)
def test_no_valid_action_makes_a_nan_or_exceeds_the_capacity(name, rows, seed):
    batch = started(load_scenario(name, steps=8), 1, seed)
    for t in range(8):
        batch.step(np.array([rows[t % len(rows)][: batch.num_agents]]))
        for records in (batch.state, batch.outcome, batch.worth, batch.totals):
            assert np.isfinite(table(records)).all()
        assert ((batch.observation >= 0) & (batch.observation <= 1)).all()
        assert batch.view.share.sum() <= batch.scenario.platform.gpus * (1 + 1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    slices=st.integers(1, 10**9),
    gpus=st.sampled_from([1.0, 2.0, 8.0]),
    asked=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_slices_never_add_up_to_more_than_the_platform(slices, gpus, asked):
    scenario = BUSY.model_copy(update={"platform": Platform(gpus=gpus, slice=1 / slices)})
    batch = started(scenario)
    batch.step(np.array([asked]))
    assert batch.view.share.sum() <= gpus * (1 + 1e-9)
    assert (batch.view.share <= 1 + 1e-9).all()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(order=st.permutations(range(4)), seed=st.integers(0, 1000))
def test_relabelling_the_agents_permutes_the_results(order, seed):
    rates = (5.0, 10.0, 3.0, 20.0)
    surge = Surge(agent="agent-2", factor=4, start_s=3, end_s=7.5)
    traffic = Traffic(law="constant", rates_rps=rates, surges=(surge,))
    here = started(BUSY.model_copy(update={"traffic": traffic}))
    there = started(
        Scenario.model_validate(
            {
                **BUSY.model_dump(),
                "agents": [BUSY.agents[i] for i in order],
                "traffic": {**traffic.model_dump(), "rates_rps": [rates[i] for i in order]},
                "routing": [[BUSY.routing[j][i] for i in order] for j in order],
            }
        )
    )
    for action in np.random.default_rng(seed).uniform(-0.2, 0.7, (BUSY.steps, 1, 4)):
        here.step(action)
        there.step(action[:, order])
        for name in STATE.names:
            expected = here.state[name][0, order]
            assert there.state[name][0] == pytest.approx(expected, rel=1e-9, abs=1e-9), name
        assert table(there.totals) == pytest.approx(table(here.totals), rel=1e-9, abs=1e-9)
        assert there.observation[0] == pytest.approx(here.observation[0, order], abs=1e-6)


def test_a_nan_is_refused_by_agent_environment_and_step_and_nothing_changes():
    batch = started(BUSY, 3)
    batch.step(np.full((3, 4), 0.2))
    before = snapshot(batch)
    action = np.full((3, 4), 0.2)
    action[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"'agent-1' is NaN in environment 2 at step 1.*0 to 1"):
        batch.step(action)
    assert snapshot(batch) == before


@pytest.mark.parametrize("shape", [(4,), (3, 3), (2, 4), (3, 4, 1), (0, 4), ()])
def test_a_wrong_shape_is_refused_with_the_right_one_and_nothing_changes(shape):
    batch = started(BUSY, 3)
    before = snapshot(batch)
    with pytest.raises(ValueError, match=r"\(3, 4\).*agent-0, agent-1, agent-2, agent-3.*got shape"):
        batch.step(np.zeros(shape))
    assert snapshot(batch) == before


def test_a_step_past_the_end_is_refused_and_nothing_changes():
    batch = started(BUSY, 2)
    for _ in range(BUSY.steps):
        batch.step(np.full((2, 4), 0.25))
    assert batch.done.all()
    before = snapshot(batch)
    with pytest.raises(RuntimeError, match=r"over after 25 steps.*call reset\(\)"):
        batch.step(np.full((2, 4), 0.25))
    assert snapshot(batch) == before


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(RuntimeError, match=r"never started: call reset\(\)"):
        Batch(BUSY, 2).step(np.zeros((2, 4)))


@pytest.mark.parametrize("num_envs", [0, -1, 2.5, "2"])
def test_a_batch_of_nothing_or_of_parts_is_refused(num_envs):
    with pytest.raises(ValueError, match=f"num_envs must be a whole number of at least 1, got {num_envs!r}"):
        Batch(BUSY, num_envs)
    assert Batch(BUSY, np.int64(2)).num_envs == 2


@pytest.mark.parametrize("mask", [np.ones(2, bool), np.ones(9, bool), np.ones((3, 1), bool)])
def test_a_mask_of_the_wrong_shape_is_refused(mask):
    batch = started(BUSY, 3)
    before = snapshot(batch)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        batch.reset(mask)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        batch.step(np.zeros((3, 4)), mask)
    assert snapshot(batch) == before


def test_any_integer_is_a_seed_and_numpy_integers_are_integers():
    for seed in (0, 2**63, 2**64 - 1):
        assert snapshot(started(BUSY, 2, seed)) == snapshot(started(BUSY, 2, seed))
    assert snapshot(started(BUSY, 2, np.int64(3))) == snapshot(started(BUSY, 2, 3))


def test_history_keeps_every_step_and_sums_add_the_reward_terms_up():
    batch = started(BUSY, 2, record=True)
    total = np.zeros((2, len(batch.totals.dtype.names)))
    for action in np.random.default_rng(1).uniform(0, 1, (BUSY.steps, 2, 4)):
        batch.step(action)
        assert (batch.history[:, batch.clock[0] - 1] == batch.outcome).all()
        total += table(batch.worth)[:, :-1]
        np.testing.assert_allclose(batch.worth["objective"], -total[:, -1] / batch.clock)
    assert table(batch.totals) == pytest.approx(total)


def test_a_batch_that_does_not_record_has_no_history_and_the_same_trajectory():
    plain, recording = started(BUSY, 2), started(BUSY, 2, record=True)
    for action in actions_of(4)[:, :2]:
        plain.step(action)
        recording.step(action)
    assert plain.history.size == 0
    assert snapshot(plain) == snapshot(recording)


def test_the_view_and_the_single_env_show_the_same_numbers():
    env = GPUAllocEnv("serverless", steps=STEPS)
    env.reset(seed=4)
    batch = started(load_scenario("serverless", steps=STEPS), 1, 4)
    for action in actions_of(4)[:STEPS, 0]:
        env.step(action)
        batch.step(action[None])
        for single, batched in zip(env.view, batch.view, strict=True):
            assert np.array_equal(np.ravel(single), np.ravel(batched))


def test_what_is_shown_bears_the_names_of_the_records():
    batch = started(BUSY, 2, record=True)
    batch.step(np.full((2, 4), 0.2))
    # A view is the first columns of the state, of the agents and of the settings, in their order.
    state, agents, settings = (
        record.names[: record.names.index(end)]
        for record, end in ((STATE, "oldest"), (AGENT, "weight"), (SETTINGS, "price"))
    )
    assert View._fields == (*state, *agents, *settings)
    assert (ARRAY_FIELDS, SETTING_FIELDS) == ((*state, *agents), settings)
    for name, value in batch.view._asdict().items():
        column = next(
            records[name]
            for records in (batch.state, batch.agents, batch.world.settings)
            if name in records.dtype.names
        )
        assert (np.asarray(value) == column).all(), name
    # The observation is a row of its record for each agent.
    assert OBSERVATION_FEATURES == OBSERVATION.names and AGENT["observed"] == OBSERVATION
    assert OBSERVATION.itemsize == 4 * len(OBSERVATION.names)
    rows = batch.observation.view(OBSERVATION)[..., 0]
    assert rows.shape == (2, 4) and (rows["min_share"] == np.float32(batch.view.min_share)).all()
    # `info` is the first columns of the outcome, and the terms of the objective are what a step is worth.
    assert INFO == OUTCOME.names[: len(INFO)]
    columns = batch.info.transpose(2, 0, 1)
    assert all(
        (column == batch.outcome[name]).all() for name, column in zip(OUTCOME.names, columns, strict=True)
    )
    assert WORTH.names == (*TERMS, "reward", "objective") and SETTINGS["price"].names == TERMS
    assert tuple(Objective.model_fields) == TERMS
    env = GPUAllocEnv("serverless", steps=2)
    env.reset(seed=0)
    info = env.step(np.full(4, 0.25))[4]
    assert tuple(info) == (*INFO, *TERMS, "objective")
    # The settings of the platform are those of the scenario.
    assert {*SETTING_FIELDS} <= {"dt", *Platform.model_fields}
