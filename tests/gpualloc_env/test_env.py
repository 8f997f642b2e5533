import copy
import json
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from gpualloc_env import OBSERVATION_FEATURES, SCENARIOS, View, observe
from gpualloc_env.simulation.observation import ARRAY_FIELDS
from gpualloc_env.simulation.state import INFO, TERMS

EPISODE_METRICS = {
    "latency_mean_s",
    "latency_p50_s",
    "latency_p95_s",
    "latency_p99_s",
    "slo_attainment",
    "throughput_rps",
    "goodput_rps",
    "backlog_end",
    "unfinished",
}
WHOLE_EPISODE_METRICS = EPISODE_METRICS | {
    "gpu_utilisation",
    "gpu_seconds",
    "cost_usd",
    "cost_usd_per_1k",
    "fairness_jain",
    "min_share_shortfall",
    "reallocations",
    "cold_starts",
    "objective",
    "paper_latency_s",
    "paper_throughput_rps",
    "paper_latency_std_s",
}


def make(scenario="serverless", **options):
    return gym.make("GPUAlloc-v0", scenario=scenario, **options)


def play(env, steps=3):
    """Observations, rewards and arrivals of some steps with equal shares."""
    agents = env.action_space.shape[0]
    results = [env.step(np.full(agents, 1 / agents, dtype=np.float32)) for _ in range(steps)]
    return [(result[0].tobytes(), result[1], result[4]["arrivals"].tobytes()) for result in results]


@pytest.mark.parametrize("name", SCENARIOS)
def test_gymnasium_finds_nothing_wrong(name, scenario_arguments):
    check_env(gym.make("GPUAlloc-v0", steps=6, **scenario_arguments[name]).unwrapped)


@pytest.mark.parametrize("name", SCENARIOS)
# One row per agent and fractions from 0 to 1 are the environment's contract; these two warnings
# only recommend the shapes that the library's own policies like best.
@pytest.mark.filterwarnings("ignore:Your observation  has an unconventional shape:UserWarning")
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box:UserWarning")
def test_stable_baselines3_finds_nothing_wrong(name, scenario_arguments):
    check_env_for_sb3(gym.make("GPUAlloc-v0", steps=6, **scenario_arguments[name]).unwrapped)


def test_a_module_prefix_imports_and_makes_it():
    program = (
        "import gymnasium as gym; env = gym.make('gpualloc_env:GPUAlloc-v0'); "
        "env.reset(seed=0); print(env.unwrapped.scenario.name)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "serverless"


def test_the_registered_spec_survives_json():
    spec = gym.spec("GPUAlloc-v0")
    assert EnvSpec.from_json(spec.to_json()) == spec


def test_the_spec_of_a_made_env_with_all_arguments_survives_json_and_makes_the_same_env(azure_log):
    arguments = {
        "scenario": "trace",
        "steps": 7,
        "dt": 0.5,
        "load": 0.7,
        "trace": str(azure_log),
        "split": "eval",
        "objective": {"slo": 2.0},
        "render_mode": "ansi",
    }
    env = gym.make("GPUAlloc-v0", **arguments)
    text = env.spec.to_json()
    assert json.loads(text)["kwargs"] == arguments
    again = gym.make(EnvSpec.from_json(text))
    assert again.unwrapped.scenario.model_dump() == env.unwrapped.scenario.model_dump()
    env.reset(seed=3)
    again.reset(seed=3)
    assert play(env) == play(again)


def test_spaces_are_those_of_the_contract():
    env = make()
    assert env.action_space == gym.spaces.Box(0, 1, (4,), np.float32)
    assert env.observation_space == gym.spaces.Box(0, 1, (4, len(OBSERVATION_FEATURES)), np.float32)


def test_info_holds_the_same_arrays_and_numbers_at_reset_and_at_every_step():
    env = make(steps=3)
    _, info = env.reset(seed=0)
    names = (*TERMS, "objective")
    assert tuple(info) == (*INFO, *names)
    assert not any(info[name].any() for name in INFO) and not any(info[name] for name in names)
    assert all(type(info[name]) is np.float64 for name in names)
    for step in range(3):
        observation, reward, terminated, truncated, info = env.step(np.full(4, 0.25))
        assert env.observation_space.contains(observation)
        assert type(reward) is float and terminated is False and truncated is (step == 2)
        assert tuple(info) == (*INFO, *names)
        for name in INFO:
            assert info[name].shape == (4,) and info[name].dtype == np.float64
        assert all(type(info[name]) is np.float64 for name in names)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_reward_is_the_priced_sum_of_its_terms_and_of_the_parts_of_the_agents(name, scenario_arguments):
    weights = {"latency": 1.0, "cost": 2.0, "throughput": 3.0, "slo": 4.0, "shortfall": 5.0, "task": 6.0}
    env = make(**{**scenario_arguments[name], "steps": 20, "load": 2.0}, objective=weights)
    env.reset(seed=0)
    signed, rewards = {**weights, "throughput": -3.0}, []
    for action in np.random.default_rng(0).dirichlet(np.ones(env.action_space.shape[0]), 20):
        _, reward, _, _, info = env.step(action)
        rewards.append(reward)
        assert reward == pytest.approx(-sum(signed[term] * info[term] for term in TERMS))
        assert info["agent_reward"].sum() == pytest.approx(reward, rel=1e-12, abs=1e-12)
        assert info["objective"] == pytest.approx(-np.mean(rewards))


def test_an_agents_part_of_the_reward_is_what_it_adds_to_the_terms():
    env = make("team", steps=10, objective={"latency": 0.0, "cost": 1.0, "throughput": 0.0, "task": 2.0})
    env.reset(seed=0)
    for _ in range(10):
        info = env.step(np.array([0.4, 0.2, 0.1, 0.1]))[4]
        calls = info["backlog"] / info["backlog"].sum()
        assert info["agent_reward"] == pytest.approx(-info["share"] / 2 - 2.0 * info["task"] * calls)


@pytest.mark.parametrize("scenario", ["serverless", "workflow", "team"])
def test_a_limit_from_outside_leaves_the_metrics_of_the_steps_that_were_taken(scenario):
    env = make(scenario, max_episode_steps=7)
    assert env.spec.max_episode_steps == 7 and make(scenario).spec.max_episode_steps == 300
    env.reset(seed=0)
    with pytest.raises(ValueError, match="no step"):
        env.unwrapped.episode_metrics()
    for step in range(7):
        _, _, _, truncated, info = env.step(np.full(4, 0.25))
        assert truncated == (step == 6)
    metrics = env.unwrapped.episode_metrics()
    assert metrics["objective"] == info["objective"]
    assert metrics["gpu_seconds"] == pytest.approx(7 * info["share"].sum())
    assert 0 < metrics["latency_p95_s"] <= 7 and metrics["unfinished"] == info["queue"].sum()


def test_the_last_step_brings_the_metrics_of_the_episode_where_they_were_asked_for():
    env = make(steps=10, episode_metrics=True)
    env.reset(seed=0)
    rewards = []
    for _ in range(10):
        _, reward, _, truncated, info = env.step(np.full(4, 0.25))
        rewards.append(reward)
        assert ("episode_metrics" in info) is truncated
    metrics = info["episode_metrics"]
    assert truncated and str(metrics) == str(env.unwrapped.episode_metrics())
    assert set(metrics) >= WHOLE_EPISODE_METRICS
    assert metrics["objective"] == pytest.approx(-np.mean(rewards))
    assert list(metrics["per_agent"]) == ["coordinator", "nlp", "vision", "reasoning"]
    for agent in metrics["per_agent"].values():
        assert set(agent) >= EPISODE_METRICS


def test_one_seed_restarts_the_sequence_of_episodes_and_none_continues_it():
    env = make(steps=3)
    env.reset(seed=5)
    first = play(env)
    env.reset()
    second = play(env)
    env.reset(seed=5)
    assert play(env) == first
    env.reset()
    assert play(env) == second
    assert first != second


def test_an_abandoned_episode_leaves_no_trace_on_the_next():
    env, other = make(steps=5), make(steps=5)
    env.reset(seed=5)
    play(env, 2)
    env.reset()
    other.reset(seed=5)
    other.reset()
    assert play(env) == play(other)


def test_a_first_reset_without_a_seed_differs_from_env_to_env():
    env, other = make(), make()
    env.reset()
    other.reset()
    assert play(env) != play(other)


def test_the_action_does_not_change_the_traffic():
    greedy, lazy = make(), make()
    greedy.reset(seed=1)
    lazy.reset(seed=1)
    for _ in range(5):
        busy = greedy.step(np.ones(4))[4]
        idle = lazy.step(np.zeros(4))[4]
        assert (busy["arrivals"] == idle["arrivals"]).all()


def test_the_action_given_is_not_changed():
    env = make()
    env.reset(seed=0)
    action = np.array([2.0, -1.0, 0.5, 0.5])
    env.step(action)
    assert action.tolist() == [2.0, -1.0, 0.5, 0.5]


def test_a_nan_action_names_its_agent_and_a_wrong_shape_the_right_one():
    env = make().unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="'vision' is NaN"):
        env.step(np.array([0.1, 0.1, np.nan, 0.1]))
    with pytest.raises(ValueError, match=r"coordinator, nlp, vision, reasoning.*got shape"):
        env.step(np.ones(3))


def test_a_step_past_the_end_is_refused():
    env = make(steps=1).unwrapped
    env.reset(seed=0)
    env.step(np.ones(4))
    with pytest.raises(RuntimeError, match=r"over after 1 steps.*reset"):
        env.step(np.ones(4))


def test_text_shows_every_agent_and_whether_its_model_is_loaded():
    env = make(render_mode="ansi")
    env.reset(seed=0)
    for _ in range(10):
        env.step(np.array([1.0, 0, 0, 0]))
    text = env.render()
    header, *lines = text.splitlines()
    assert "share [GPU]" in header
    assert [line.split()[0] for line in lines] == ["coordinator", "nlp", "vision", "reasoning"]
    assert "1.000" in lines[0] and lines[0].endswith("warm") and lines[1].endswith("cold, 4.0 s to load")


def test_render_without_a_mode_gives_nothing():
    from gpualloc_env.env import GPUAllocEnv

    env = GPUAllocEnv()
    env.reset(seed=0)
    assert env.render() is None


def test_the_view_of_a_single_env_has_one_number_per_agent():
    env = make().unwrapped
    env.reset(seed=0)
    assert env.view.queue.shape == (4,) and env.view.gpus == 1.0
    assert (env.view.queue == env.view.inflow).all()


def test_the_observation_is_the_encoded_view():
    env = make().unwrapped
    env.reset(seed=0)
    for _ in range(12):
        observation = env.step(np.array([0.5, 0.3, 0.0, 0.0]))[0]
    assert (observe(env.view) == observation).all()


@pytest.mark.parametrize("field", View._fields)
def test_the_observation_tells_whatever_the_view_tells(field):
    env = make().unwrapped
    env.reset(seed=0)
    for _ in range(4):
        env.step(np.array([0.5, 0.3, 0.0, 0.0]))
    changed = env.view._replace(**{field: getattr(env.view, field) / 2 + 0.1})
    assert (observe(changed) != observe(env.view)).any()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_in_mid_episode_goes_on_as_the_original_does(duplicate):
    env = gym.make("GPUAlloc-v0", steps=6).unwrapped
    env.reset(seed=3)
    actions = np.random.default_rng(0).random((12, 4))
    for action in actions[:4]:
        env.step(action)
    twin = duplicate(env)
    for action in actions[4:6]:
        original, copied = env.step(action), twin.step(action)
        assert data_equivalence(original, copied, exact=True)
        assert all((getattr(env.view, name) == getattr(twin.view, name)).all() for name in ARRAY_FIELDS)
    assert (env.reset()[0] == twin.reset()[0]).all()
    env.step(actions[6])
    assert not (env.view.queue == twin.view.queue).all()
