"""`GPUCluster-v0`: the contract that Gymnasium and its libraries expect of it."""

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3

from gpualloc_env import CLUSTERS, ScenarioError
from gpualloc_env.cluster_vector_env import GPUClusterVectorEnv
from gpualloc_env.simulation.residency import EVENTS
from gpualloc_env.simulation.state import INFO, TERMS

KEYS = {*INFO, *TERMS, *EVENTS, "objective", "resident"}


def make(scenario="cluster-small", **options):
    return gym.make("GPUCluster-v0", scenario=scenario, **options)


def actions_of(env, steps, seed=0):
    """Few agents get a share of each GPU, others in every step."""
    random, shape = np.random.default_rng(seed), (steps, *env.action_space.shape)
    return (random.uniform(0, 1, shape) * (random.random(shape) < 0.3)).astype(np.float32)


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_checkers_find_nothing_wrong(name):
    check_env(make(name, steps=4).unwrapped)
    with warnings.catch_warnings():
        # It advises against actions that do not reach −1 and parts of a Dict with more than one axis.
        warnings.simplefilter("ignore")
        check_env_for_sb3(make(name, steps=4).unwrapped)


def test_info_has_the_same_keys_at_reset_and_at_each_step_and_arrays_and_floats_only():
    env = make(steps=5)
    _, info = env.reset(seed=0)
    agents, gpus = env.action_space.shape
    for action in (None, *actions_of(env, 5)):
        if action is not None:
            _, reward, terminated, truncated, info = env.step(action)
            assert info["agent_reward"].sum() == pytest.approx(reward, rel=1e-12)
            assert not terminated
        assert set(info) == KEYS
        assert info["share"].shape == info["resident"].shape == (agents, gpus)
        for name, value in info.items():
            assert isinstance(value, float) or isinstance(value, np.ndarray), name
    assert truncated and env.unwrapped.episode_metrics()["cost_usd"] > 0


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", ["cluster-small", "cluster-nodes"])
def test_the_native_batch_equals_the_synchronous_one(name, mode):
    options = {"scenario": name, "steps": 4, "load": 1.0}
    native = gym.make_vec("GPUCluster-v0", 3, autoreset_mode=mode, **options)
    synchronous = gym.make_vec(
        "GPUCluster-v0", 3, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **options
    )
    assert isinstance(native.unwrapped, GPUClusterVectorEnv)
    assert data_equivalence(native.reset(seed=9), synchronous.reset(seed=9))
    for action in actions_of(native, 11):
        ours, theirs = native.step(action), synchronous.step(action)
        assert data_equivalence(ours[:4], theirs[:4])
        assert set(ours[4]) == set(theirs[4])
        for key, value in theirs[4].items():
            assert data_equivalence(listed(ours[4][key]), listed(value)), key
        if mode is AutoresetMode.DISABLED and ours[3].any():
            options = {"reset_mask": ours[3]}
            assert data_equivalence(native.reset(options=options), synchronous.reset(options=options))


def listed(value):
    """The same with lists for arrays of objects, which hold None where there is nothing."""
    return value.tolist() if isinstance(value, np.ndarray) and value.dtype.kind == "O" else value


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_goes_on_as_the_environment_itself_and_apart_from_it(duplicate):
    env = make(steps=20).unwrapped
    env.reset(seed=3)
    first, second = actions_of(env, 5), actions_of(env, 15, seed=1)
    for action in first:
        env.step(action)
    other = duplicate(env)
    ours = [env.step(action) for action in second]
    theirs = [other.step(action) for action in second]
    for one, two in zip(ours, theirs, strict=True):
        assert data_equivalence(one, two)
    for name, values in env.view._asdict().items():
        if name != "agents":
            assert np.array_equal(values, getattr(other.view, name)), name


def test_each_id_refuses_the_scenarios_of_the_other_and_says_which_to_make():
    with pytest.raises(ScenarioError, match="make GPUCluster-v0"):
        gym.make("GPUAlloc-v0", scenario="cluster-small")
    with pytest.raises(ScenarioError, match="make GPUAlloc-v0"):
        make("llm")
    with pytest.raises(ScenarioError, match="make GPUAlloc-v0"):
        gym.make_vec("GPUCluster-v0", 2, scenario="serverless")


def test_wrong_actions_are_refused_by_name():
    env = make(steps=5)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action must have shape \(8, 4\)"):
        env.step(np.zeros(8, np.float32))
    action = actions_of(env, 1)[0]
    action[2, 3] = np.nan
    with pytest.raises(ValueError, match="GPU 3 asked for agent 'vision' is NaN in environment 0"):
        env.step(action)
    env.step(np.nan_to_num(action))
    with pytest.raises(RuntimeError, match="call reset"):
        for _ in range(6):
            env.step(np.nan_to_num(action))


@pytest.mark.parametrize("name", CLUSTERS)
def test_text_has_a_line_for_each_gpu(name):
    env = make(name, render_mode="ansi", steps=3)
    env.reset(seed=0)
    assert len(env.render().splitlines()) == 1 + env.action_space.shape[1]
