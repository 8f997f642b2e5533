"""Arrays that a caller keeps from `reset` and `step` never change later, and views cannot be written to."""

import gymnasium as gym
import numpy as np
import pytest
from support.episodes import started

from gpualloc_env import load_scenario

STEPS = 5
CALLS = 3 * (STEPS + 1)


class Kept:
    """Arrays, and what they held when they were given."""

    def __init__(self):
        self.arrays = []

    def keep(self, results):
        """Keep every array in what `reset` or `step` has returned."""
        if isinstance(results, dict):
            results = results.values()
        elif isinstance(results, np.ndarray):
            self.arrays.append((results, results.copy()))
            return
        elif not isinstance(results, tuple):
            return
        for result in results:
            self.keep(result)

    def unchanged(self):
        return all(np.array_equal(array, copy, equal_nan=True) for array, copy in self.arrays)


@pytest.mark.parametrize("scenario", ["serverless", "team", "cluster-small"])
def test_a_policy_cannot_write_into_its_view(scenario):
    cluster = bool(load_scenario(scenario).nodes)
    env = gym.make("GPUCluster-v0" if cluster else "GPUAlloc-v0", scenario=scenario)
    env.reset(seed=0)
    views = [env.unwrapped.view] if cluster else [env.unwrapped.view, started(env.unwrapped.scenario, 2).view]
    arrays = [value for view in views for value in flattened(view) if isinstance(value, np.ndarray)]
    assert len(arrays) > 15 and not any(array.flags.writeable for array in arrays)


def flattened(view):
    """The values of a view, those of a view in it included."""
    for value in view:
        yield from flattened(value) if isinstance(value, tuple) else (value,)


def test_of_the_single_environment():
    env, kept = gym.make("GPUAlloc-v0", steps=STEPS), Kept()
    actions = np.random.default_rng(0).random((CALLS, 4))
    kept.keep(env.reset(seed=0))
    over = False
    for action in actions:
        results = env.reset() if over else env.step(action)
        over = len(results) == 5 and results[3]
        kept.keep(results)
    # The observation and seven arrays of each call.
    assert len(kept.arrays) == 8 * (1 + CALLS) and kept.unchanged()


@pytest.mark.parametrize("num_envs", [1, 3, 512])
def test_of_the_vector_environment(num_envs):
    env, kept = gym.make_vec("GPUAlloc-v0", num_envs=num_envs, steps=STEPS), Kept()
    actions = np.random.default_rng(0).random((CALLS, num_envs, 4))
    kept.keep(env.reset(seed=0))
    for action in actions:
        kept.keep(env.step(action))
    # Some environments are reset in mid-episode, and the others show what they showed.
    kept.keep(env.reset(options={"reset_mask": np.arange(num_envs) % 2 == 0}))
    for action in actions:
        kept.keep(env.step(action))
    # Four arrays of each step, one of each reset, and the arrays and numbers of `info`, each with its mask.
    assert len(kept.arrays) == 2 * CALLS * (4 + 28) + 2 * (1 + 28) and kept.unchanged()


@pytest.mark.parametrize("num_envs", [1, 4096])
def test_of_a_batch(num_envs):
    batch, kept = started(load_scenario("serverless", steps=STEPS), num_envs), Kept()
    mask = np.arange(num_envs) % 2 == 0
    for episode in range(2):
        kept.keep(batch.observation)
        for t in range(STEPS):
            shares = np.random.default_rng(t).random((num_envs, 4))
            batch.step(shares, mask if episode and t == 0 else None)
            kept.keep((batch.observation, batch.info, batch.reward))
            if episode and t == 0:
                batch.step(shares, ~mask)
        batch.reset(mask if episode else None)
    batch.reset()
    assert len(kept.arrays) == 2 * (1 + 3 * STEPS) and kept.unchanged()
