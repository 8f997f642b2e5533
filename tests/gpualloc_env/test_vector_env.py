import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics

from gpualloc_env import SCENARIOS
from gpualloc_env.vector_env import GPUAllocVectorEnv


def make(num_envs=3, **options):
    return gym.make_vec("GPUAlloc-v0", num_envs=num_envs, **options)


def actions_of(env, calls, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (calls, *env.action_space.shape)).astype(np.float32)


def defined(metrics):
    """The same with −1 for what is not a number, which equals nothing: an agent may have had no calls."""
    if isinstance(metrics, dict):
        return {name: defined(value) for name, value in metrics.items()}
    return metrics if metrics.dtype == object else np.nan_to_num(metrics, nan=-1.0)


def same(ours, theirs):
    """Assert that two results of `reset` or `step` are equal, `info` to the last mask."""
    assert data_equivalence(ours[:-1], theirs[:-1], exact=True)
    assert set(ours[-1]) == set(theirs[-1])
    for key, value in theirs[-1].items():
        assert data_equivalence(defined(ours[-1][key]), defined(value), exact=True), key


@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_native_batch_equals_the_synchronous_one_step_by_step(name, mode, scenario_arguments):
    # Heavy load: every agent has requests, so that no metric is undefined (NaN equals nothing).
    arguments = {**scenario_arguments[name], "steps": 6, "load": 5.0}
    arguments |= {"episode_metrics": True}
    native = make(autoreset_mode=mode, **arguments)
    synchronous = make(vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **arguments)
    assert isinstance(native.unwrapped, GPUAllocVectorEnv)
    assert native.metadata["autoreset_mode"] is synchronous.metadata["autoreset_mode"] is mode
    same(native.reset(seed=[9, 2, 5]), synchronous.reset(seed=[9, 2, 5]))
    for call, action in enumerate(actions_of(native, 3 * 7 + 2)):
        ours, theirs = native.step(action), synchronous.step(action)
        same(ours, theirs)
        if mode is AutoresetMode.DISABLED and ours[3].any():
            with pytest.raises(RuntimeError, match=r"environments \[\d.*reset_mask"):
                native.step(action)
            mask = ours[3]
        elif call == 2:  # so that they end at different times from then on
            mask = np.array([True, False, True])
        else:
            continue
        same(*(each.reset(options={"reset_mask": mask.copy()}) for each in (native, synchronous)))


def test_a_batch_ends_with_a_limit_from_outside_as_the_synchronous_one():
    native = make(max_episode_steps=4, steps=9)
    synchronous = make(max_episode_steps=4, steps=9, vectorization_mode="sync")
    assert native.spec.max_episode_steps == 4 and make(steps=9).spec.max_episode_steps == 9
    same(native.reset(seed=1), synchronous.reset(seed=1))
    for action in actions_of(native, 11):
        same(native.step(action), synchronous.step(action))
    assert make(max_episode_steps=-1, steps=9).spec.max_episode_steps in (-1, 9)
    with pytest.raises(ValueError, match="max_episode_steps must be at least 1, or -1 for none, got 0"):
        make(max_episode_steps=0)


def test_attributes_of_each_environment_are_those_of_the_synchronous_ones():
    native = make(scenario="team", steps=4, episode_metrics=True)
    synchronous = make(scenario="team", steps=4, vectorization_mode="sync")
    with pytest.raises(ValueError, match=r"no step of an episode: call reset\(\) and step\(\) first"):
        native.call("episode_metrics")
    native.reset(seed=0)
    synchronous.reset(seed=0)
    for action in actions_of(native, 2):
        native.step(action)
        synchronous.step(action)
    for name in ("view", "tasks", "episode_metrics", "observation_space", "action_space", "scenario"):
        assert str(native.call(name)) == str(synchronous.call(name)), name
    assert native.get_attr("scenario") == (native.unwrapped.scenario,) * 3
    with pytest.raises(AttributeError, match="no 'queue' of their own; there are view, tasks"):
        native.get_attr("queue")


def test_metrics_of_episodes_are_left_out_unless_asked_for():
    env = make(steps=2)
    env.reset(seed=0)
    env.step(actions_of(env, 1)[0])
    *_, truncated, info = env.step(actions_of(env, 1)[0])
    assert truncated.all() and "episode_metrics" not in info


def test_the_call_after_the_end_starts_the_next_episode_and_ignores_its_action():
    env, other = make(steps=3), make(steps=3)
    env.reset(seed=0)
    other.reset(seed=0)
    action = actions_of(env, 1)[0]
    for call in range(3):
        *_, truncated, _ = env.step(action)
        other.step(action)
        assert truncated.all() == (call == 2)
    observation, reward, terminated, truncated, info = env.step(action)
    assert (reward == 0).all() and not terminated.any() and not truncated.any()
    assert not any(values.any() for name, values in info.items() if not name.startswith("_"))
    assert (observation == other.step(np.full_like(action, np.nan))[0]).all()
    assert (env.step(action)[0] == other.step(action)[0]).all()


def test_a_reset_mask_starts_some_environments_anew_and_leaves_the_others():
    env = make()
    env.reset(seed=0)
    before = [env.step(action)[0] for action in actions_of(env, 2)][-1]
    after, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert (after[[0, 2]] == before[[0, 2]]).all() and (after[1] != before[1]).any()
    assert env.unwrapped._batch.clock.tolist() == [2, 0, 2]


def test_a_seed_with_a_reset_mask_seeds_only_those_environments():
    env, synchronous = make(steps=2), gym.make_vec("GPUAlloc-v0", 3, vectorization_mode="sync", steps=2)
    options = {"reset_mask": np.array([False, True, False])}
    for each in (env, synchronous):
        each.reset(seed=0)
        each.step(actions_of(env, 1)[0])
        each.reset(seed=70, options=dict(options))
    for action in actions_of(env, 9):
        assert (env.step(action)[0] == synchronous.step(action)[0]).all()


@pytest.mark.parametrize("mask", [np.ones(2, bool), np.ones(5, bool), np.zeros(3, bool), [True, False, True]])
def test_a_reset_mask_that_gymnasium_refuses_is_refused(mask):
    env = make()
    env.reset(seed=0)
    with pytest.raises((ValueError, AssertionError), match="reset_mask"):
        env.reset(options={"reset_mask": mask})


@pytest.mark.parametrize("seeds", [[1, 2], [1, 2, 3, 4], [1, -2, 3]])
def test_a_wrong_list_of_seeds_is_refused(seeds):
    with pytest.raises(ValueError, match=r"a list of 3, got \d seeds|seeds must be 0 or more"):
        make().reset(seed=seeds)


def test_of_a_list_of_seeds_none_continues_the_sequence_of_episodes():
    env, other = make(steps=2), make(steps=2)
    env.reset(seed=3)
    other.reset(seed=3)
    second, _ = other.reset()
    mixed, _ = env.reset(seed=[None, 9, None])
    assert (mixed[[0, 2]] == second[[0, 2]]).all() and (mixed[1] != second[1]).any()


def test_a_render_mode_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"a batch is not rendered.*single env"):
        GPUAllocVectorEnv(2, render_mode="ansi")


def test_a_nan_from_a_running_environment_is_refused_by_its_number():
    env = make()
    env.reset(seed=0)
    action = actions_of(env, 1)[0]
    action[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"'coordinator' is NaN in environment 2 at step 0"):
        env.step(action)


def test_spaces_and_spec_are_those_of_gymnasium():
    env = make(5, scenario="paper", steps=4)
    single = gym.make("GPUAlloc-v0", scenario="paper")
    assert env.num_envs == 5
    assert env.single_action_space == single.action_space
    assert env.single_observation_space == single.observation_space
    assert env.observation_space.shape == (5, *single.observation_space.shape)
    assert env.spec.id == "GPUAlloc-v0" and env.spec.kwargs["steps"] == 4
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)


def test_wrappers_record_lengths_and_returns_of_episodes():
    env = RecordEpisodeStatistics(make(steps=4))
    env.reset(seed=0)
    total = np.zeros(3)
    for action in actions_of(env, 4):
        _, reward, _, truncated, info = env.step(action)
        total += reward
    assert truncated.all()
    assert info["episode"]["l"].tolist() == [4, 4, 4]
    assert info["episode"]["r"] == pytest.approx(total)
    NormalizeReward(make(steps=2)).reset(seed=0)


def test_a_seedless_reset_continues_the_sequence_of_episodes():
    env, other = make(steps=2), make(steps=2)
    env.reset(seed=3)
    second, _ = env.reset()
    other.reset(seed=3)
    again, _ = other.reset()
    assert (second == again).all()
    assert (env.reset(seed=3)[0] != second).any()
