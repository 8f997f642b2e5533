"""Speed of stepping, episodes and their resets included. `make bench` prints the ratios.

A benchmark measures; nothing here fails because a machine is slow.
"""

import gymnasium as gym
import numpy as np
import pytest

import gpualloc_env  # noqa: F401  registers the environment
from gpualloc_env.algorithm_1 import algorithm_1

SINGLE_STEPS = 3010
EPISODE = 301  # steps of a whole serverless episode and of the start of the next one


def typical_action(env):
    """Equal shares, or a random push. Allocations that let queues grow long step more slowly."""
    space = env.action_space
    return np.full(space.shape, 0.25, space.dtype) if space.dtype == np.float32 else space.sample()


def test_single_environment(against_cartpole):
    env = gym.make("GPUAlloc-v0")
    env.reset(seed=0)
    action = typical_action(env)

    def run():
        for _ in range(SINGLE_STEPS):
            _, _, _, truncated, _ = env.step(action)
            if truncated:
                env.reset()

    against_cartpole("GPUAlloc-v0, gym.make", SINGLE_STEPS, run, rounds=60)
    assert env.observation_space.contains(env.reset()[0])


@pytest.mark.parametrize("num_envs", [1024, 16384])
@pytest.mark.parametrize("name", ["CartPole-v1", "GPUAlloc-v0"])
def test_native_batch(against_cartpole, name, num_envs):
    env = gym.make_vec(name, num_envs=num_envs, vectorization_mode="vector_entry_point")
    env.reset(seed=0)
    action = typical_action(env)

    def run():
        for _ in range(EPISODE):
            env.step(action)

    rounds = 40 if num_envs == 1024 else 6
    against_cartpole(f"{name}, make_vec({num_envs})", EPISODE * num_envs, run, rounds)
    assert env.observation_space.contains(env.reset()[0])


def test_algorithm_1_on_a_million_agents(benchmark):
    agents = 1_000_000
    generator = np.random.default_rng(0)
    rate, min_share = generator.random(agents), generator.random(agents) / agents
    priority = generator.integers(1, 4, agents).astype(float)
    benchmark.extra_info.update(label="Algorithm 1, one million agents", agents=agents)
    shares = benchmark.pedantic(algorithm_1, (rate, min_share, priority, 1.0), rounds=60, warmup_rounds=2)
    assert shares.sum() <= 1 + 1e-9
