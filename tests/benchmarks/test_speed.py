"""Speed of stepping, episodes and their resets included. `make bench` prints the ratios.

A benchmark measures; nothing here fails because a machine is slow.
"""

import gymnasium as gym
import numpy as np
import pytest

import gpualloc_env  # noqa: F401  registers the environment
from baselines.adaptive import algorithm_1

SINGLE_STEPS = 3010
ROUNDS = 15


def measure(benchmark, label, steps, run):
    benchmark.extra_info.update(label=label, steps=steps)
    benchmark.pedantic(run, rounds=ROUNDS, warmup_rounds=2)


def typical_action(env):
    """Equal shares, or a random push. Allocations that let queues grow long step more slowly."""
    space = env.action_space
    return np.full(space.shape, 0.25, space.dtype) if space.dtype == np.float32 else space.sample()


@pytest.mark.parametrize("name", ["CartPole-v1", "GPUAlloc-v0"])
def test_single_environment(benchmark, name):
    env = gym.make(name)
    env.reset(seed=0)
    actions = [typical_action(env) for _ in range(SINGLE_STEPS)]

    def run():
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    measure(benchmark, f"{name}, gym.make", SINGLE_STEPS, run)
    assert env.observation_space.contains(env.reset()[0])


@pytest.mark.parametrize("num_envs", [1024, 16384])
@pytest.mark.parametrize("name", ["CartPole-v1", "GPUAlloc-v0"])
def test_native_batch(benchmark, name, num_envs):
    env = gym.make_vec(name, num_envs=num_envs, vectorization_mode="vector_entry_point")
    env.reset(seed=0)
    action = typical_action(env)
    steps = 301  # one whole episode of serverless and the step that starts the next one

    def run():
        for _ in range(steps):
            env.step(action)

    measure(benchmark, f"{name}, make_vec({num_envs})", steps * num_envs, run)
    assert env.observation_space.contains(env.reset()[0])


def test_algorithm_1_on_a_million_agents(benchmark):
    agents = 1_000_000
    generator = np.random.default_rng(0)
    rate, min_share = generator.random(agents), generator.random(agents) / agents
    priority = generator.integers(1, 4, agents).astype(float)
    benchmark.extra_info.update(label="Algorithm 1, one million agents", agents=agents)
    shares = benchmark.pedantic(
        algorithm_1, (rate, min_share, priority, 1.0), rounds=4 * ROUNDS, warmup_rounds=2
    )
    assert shares.sum() <= 1 + 1e-9
