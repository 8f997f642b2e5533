"""Steps per second beside CartPole-v1: what the benchmarks and the test of the floors measure.

The speed of a shared machine drifts within seconds, so a reference that is measured once, before
or after, tells little: every chunk of steps is measured between two chunks of CartPole itself.
"""

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple

import gymnasium as gym
import numpy as np

import gpualloc_env

REFERENCE_STEPS = 3000
SINGLE_STEPS = 3000  # ten serverless episodes


class Loop(NamedTuple):
    """Something that steps environments: one call of `run` takes `steps` steps, over all of them."""

    steps: int
    run: Callable[[], object]
    env: gym.Env | gym.vector.VectorEnv


class Reference:
    """The speed of a loop, measured whenever something else is about to be measured, or just was."""

    def __init__(self, loop):
        self.loop = loop
        self.rates = []

    def measure(self):
        start = perf_counter()
        self.loop.run()
        self.rates.append(self.loop.steps / (perf_counter() - start))


def typical_action(env):
    """Equal shares, or a random push. Allocations that let queues grow long step more slowly."""
    space = env.action_space
    if space.dtype != np.float32:
        return space.sample()
    return np.full(space.shape, 1 / space.shape[-1], space.dtype)


def single(name, steps, **arguments):
    """Steps of one environment through `gym.make`, resets between them."""
    env = gym.make(name, **arguments)
    env.reset(seed=0)
    actions = [typical_action(env) for _ in range(steps)]

    def run():
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return Loop(steps, run, env)


def vector(name, num_envs, calls, mode="vector_entry_point", **arguments):
    """So many calls of `step` of a vector environment, which starts the next episodes itself."""
    env = gym.make_vec(name, num_envs=num_envs, vectorization_mode=mode, **arguments)
    env.reset(seed=0)
    action = typical_action(env)

    def run():
        for _ in range(calls):
            env.step(action)

    return Loop(calls * num_envs, run, env)


def whole_episodes(num_envs, parts=1, **arguments):
    """One episode of every environment of a native batch, and the call that starts the next ones.

    Environments of a scenario end together, so only a whole episode has its share of resets. It can be
    run in parts, one for each call of `run`.
    """
    steps = gpualloc_env.load_scenario(**arguments).steps
    calls, rest = divmod(steps + 1, parts)
    assert rest == 0, f"{steps + 1} calls of step are no whole number of {parts} parts"
    # The call that starts an episode is no step.
    loop = vector("GPUAlloc-v0", num_envs, calls, **arguments)
    return loop._replace(steps=steps * num_envs / parts)


def cartpole():
    """CartPole-v1 through `gym.make`."""
    return single("CartPole-v1", REFERENCE_STEPS)


def ratios(loop, seconds, rates, parts=1):
    """How many times faster each `parts` runs of a loop were than the reference around each of them.

    Args:
        loop: what took `seconds`, (n,) [s].
        seconds: time of each run.
        rates: (n + 1,) [steps/s] of the reference before and after each run.
        parts: how many runs make one measurement.
    """
    around = 0.5 * (np.array(rates[:-1]) + np.array(rates[1:]))
    reference_steps = np.array(seconds) * around
    return parts * loop.steps / reference_steps.reshape(-1, parts).sum(axis=1)
