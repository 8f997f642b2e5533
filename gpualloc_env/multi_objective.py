"""`GPUAlloc-MO-v0`: the reward as a vector of its terms, as MO-Gymnasium has it."""

from typing import Any

import numpy as np
from gymnasium import spaces

from gpualloc_env.env import GPUAllocEnv
from gpualloc_env.simulation.state import TERMS, AnyArray

_SIGNS = np.array([1.0 if term == "throughput" else -1.0 for term in TERMS])


class GPUAllocMOEnv(GPUAllocEnv):
    """`GPUAllocEnv` whose reward is a vector, (6,): the objective's terms, signed so that more is better.

    `weights`, (6,), are the scenario's: `weights @ reward` is the reward of `GPUAlloc-v0`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take the arguments of `GPUAllocEnv`."""
        super().__init__(*arguments, **options)
        self.reward_space = spaces.Box(-np.inf, np.inf, (len(TERMS),), np.float64)
        self.reward_dim = len(TERMS)
        self.weights = np.array([getattr(self.scenario.objective, term) for term in TERMS])

    def step(self, action: AnyArray) -> tuple[AnyArray, Any, bool, bool, dict[str, Any]]:
        """As in `GPUAllocEnv`, but for the reward."""
        observation, _, terminated, truncated, info = super().step(action)
        return observation, _SIGNS * [info[term] for term in TERMS], terminated, truncated, info
