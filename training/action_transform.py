"""From a learner's unbounded action to shares of the platform."""

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from gpualloc_env.state import AnyArray


@dataclass(frozen=True)
class SimplexActions:
    """Shares as a softmax over N + 1 logits, the last of which stands for idle capacity.

    PPO explores with Gaussian noise, which does not fit a simplex; it fits logits. The idle slot
    lets the learner leave part of the platform unbilled, and `idle_bias` makes it small at first.
    """

    num_agents: int
    idle_bias: float = -2.0
    bound: float = 6.0
    """Logits are clipped to ±bound by the learner, which keeps every share in reach."""

    @property
    def space(self) -> spaces.Box:
        """The learner's action space, (N + 1,)."""
        return spaces.Box(-self.bound, self.bound, (self.num_agents + 1,), np.float32)

    def __call__(self, logits: AnyArray) -> AnyArray:
        """Fractions of the platform, (B, N), summing to less than 1 in each row, for (B, N + 1) logits."""
        logits = logits.astype(np.float64)
        logits[:, -1] += self.idle_bias
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights[:, :-1] / weights.sum(axis=1, keepdims=True)
