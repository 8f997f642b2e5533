"""A good schedule for an episode of calls whose tasks and tokens are all known: a policy, improved.

A policy decides, and factors multiply what it asks for. The episode is gone through from its start: in
each window of steps candidates, random factors for its steps, go on from the same state to the end of the
episode, with the factors that stand for later, and the best one stays. Narrower windows follow wider ones.
All candidates meet the same future, so what differs between their J is what they did.
"""

from collections.abc import Callable

import numpy as np

from gpualloc_env.batch import Batch
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array

WINDOWS = (16, 8, 4, 2, 1)
"""Steps of a window in each pass through the episode."""
CANDIDATES = 48
SPREAD = 0.5
"""Standard deviation of the logarithm of a factor; every other factor is 1."""


def window_search(
    scenario: Scenario, seed: int, policy: Callable[[View], Array], passes: int
) -> tuple[Array, float]:
    """Shares for every step of the episode that `seed` draws, (T, N), and J of the episode under them.

    Args:
        scenario: what is played.
        seed: of the episode.
        policy: whom to improve; without memory.
        passes: how many of WINDOWS to go through the episode with; without any it is the policy's own.
    """
    steps, generator = scenario.steps, np.random.default_rng(seed % 2**63)
    episode, candidates = Batch(scenario, 1), Batch(scenario, CANDIDATES)
    shares, factors = np.empty((2, steps, len(scenario.agents)))
    factors[:] = 1.0

    def advance(batch: Batch, factor: Array) -> Array:
        asked = np.minimum(1.0, policy(batch.view) * factor)
        asked /= np.maximum(1.0, asked.sum(axis=-1, keepdims=True))
        batch.step(asked)
        return asked

    for width in WINDOWS[:passes] or (steps,):
        episode.seed(seed)
        episode.reset()
        for first in range(0, steps, width):
            last = min(first + width, steps)
            if width < steps:
                candidates.become(episode)
                tried = np.exp(SPREAD * generator.standard_normal((CANDIDATES, factors.shape[1])))
                tried = np.where(generator.random(tried.shape) < 0.5, tried, 1.0)
                tried[0] = 1.0
                for t in range(first, steps):
                    advance(candidates, factors[t] * (tried if t < last else 1.0))
                factors[first:last] *= tried[candidates.totals["reward"].argmax()]
            for t in range(first, last):
                shares[t] = advance(episode, factors[t])[0]
    return shares, float(-episode.totals["reward"][0] / steps)
