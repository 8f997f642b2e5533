"""From a learner's unbounded actions to shares of the platform."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces

from gpualloc_env.allocator.actions import ACTIONS, OUTPUTS_ALONE, Actions, outputs_for
from gpualloc_env.simulation.observation import View, pack
from gpualloc_env.simulation.state import AnyArray, Array


@dataclass(frozen=True)
class ActionTransform:
    """What makes shares of actions, in training as in an exported file, and the space of the actions.

    PPO explores with Gaussian noise, which does not fit shares: it fits logits and logarithms.
    """

    num_agents: int
    settings: dict[str, Any]
    """`kind`, a key of `gpualloc_env.allocator.actions.ACTIONS`, `bound` and what else that kind needs."""

    @cached_property
    def _actions(self) -> Actions:
        return ACTIONS[self.settings["kind"]][0](self.settings)

    @property
    def size(self) -> int:
        """Numbers in an action."""
        return outputs_for(self.settings["kind"], self.num_agents)

    @property
    def space(self) -> spaces.Box:
        """The learner's action space; what it asks for beyond ±bound is clipped."""
        bound = self.settings["bound"]
        return spaces.Box(-bound, bound, (self.size,), np.float32)

    def __call__(self, observation: AnyArray, actions: AnyArray, view: View | None = None) -> Array:
        """Fractions of the platform, (B, N), for observations, (B, N, F), and actions, (B, A).

        Raises:
            ValueError: the actions have another shape.
        """
        if np.shape(actions) != (len(observation), self.size):
            raise ValueError(
                f"actions must have shape {(len(observation), self.size)}, {self.size} numbers for each "
                f"environment, got shape {np.shape(actions)}"
            )
        packed = None if view is None or self.settings["kind"] in OUTPUTS_ALONE else pack(view)
        return self._actions(observation, actions, packed)


def simplex(num_agents: int) -> ActionTransform:
    """Shares on a simplex. The idle slot lets part of the platform go unbilled; at first it is small."""
    return ActionTransform(num_agents, {"kind": "simplex", "bound": 6.0, "idle_bias": -3.4})


def hysteresis(num_agents: int) -> ActionTransform:
    """Shares that follow those on the simplex, any of which can stay as it is where a change would cost.

    At first an agent moves where its share would change by more than .06 GPU.
    """
    settings = {"bound": 6.0, "idle_bias": -3.4, "widest": 0.5, "threshold_bias": -2.0}
    return ActionTransform(num_agents, {"kind": "hysteresis", **settings})
