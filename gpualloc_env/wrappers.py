"""Wrappers that make the environment easier to learn."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorActionWrapper, VectorEnv
from gymnasium.vector.utils import batch_space

from gpualloc_env.action_transform import ActionTransform, simplex
from gpualloc_env.simulation.state import AnyArray

Env = gym.Env[Any, Any]
Vector = VectorEnv[Any, Any, Any]


def _transform_of(space: spaces.Space[Any]) -> ActionTransform:
    """What makes fractions of the platform, N of them, of logits.

    Raises:
        ValueError: actions are not fractions of the platform.
    """
    box: Any = space
    # Logits of a wrapper that stands further inside, and actions that another one has rescaled, are none.
    if (
        not isinstance(space, spaces.Box)
        or len(space.shape) != 1
        or (box.low != 0).any()
        or (box.high != 1).any()
    ):
        raise ValueError(f"SimplexAction needs actions of N fractions of the platform, got {space}")
    return simplex(space.shape[0])


def _shares(transform: ActionTransform, logits: AnyArray) -> AnyArray:
    """Fractions of the platform, (B, N), of logits, (B, N + 1)."""
    logits = np.asarray(logits, np.float32)
    if logits.shape[1:] != (transform.size,):
        raise ValueError(
            f"an action must hold {transform.size} logits, one for each agent and one for idle capacity, "
            f"got shape {logits.shape[1:]}"
        )
    # How the mapping knows the number of agents; it reads no column.
    observation = np.empty((len(logits), transform.num_agents, 0), np.float32)
    return transform(observation, logits)


class SimplexAction(gym.ActionWrapper[Any, Any, Any], RecordConstructorArgs):
    """Actions are N + 1 logits, whose softmax are the shares of the N agents and an idle part.

    Every action is then an allocation that fits the platform, and a Gaussian around 0, with which
    learners begin, is one of about equal shares: around shares of 0 half of its draws are clipped
    to "no GPU". It is the mapping of the project's own `ppo`: logits are clipped to ±6, and the idle
    one is lowered so that at first about 3 % of the platform is idle. A vector environment becomes
    one of the same kind.
    """

    def __new__(cls, env: Env | Vector | None = None) -> Any:
        """Wrap each kind of environment in its own way."""
        return SimplexVectorAction(env) if isinstance(env, VectorEnv) else super().__new__(cls)

    def __init__(self, env: Env) -> None:  # pyright: ignore[reportInconsistentConstructor]
        """Wrap an environment whose actions are N fractions of the platform."""
        RecordConstructorArgs.__init__(self)
        gym.ActionWrapper.__init__(self, env)  # pyright: ignore[reportUnknownMemberType]
        self._transform = _transform_of(env.action_space)
        self.action_space = self._transform.space

    def action(self, action: AnyArray) -> AnyArray:
        """Fractions of the platform, (N,), of logits, (N + 1,)."""
        return _shares(self._transform, np.asarray(action)[None])[0]


class SimplexVectorAction(VectorActionWrapper):
    """`SimplexAction` of a vector environment."""

    def __init__(self, env: Vector) -> None:
        """Wrap a vector environment whose actions are N fractions of the platform each."""
        super().__init__(env)
        self._transform = _transform_of(env.single_action_space)  # pyright: ignore
        self.single_action_space = self._transform.space
        self.action_space = batch_space(self.single_action_space, env.num_envs)

    @property
    def autoreset_mode(self) -> AutoresetMode:
        """What follows the end of an episode, where libraries look for it."""
        return self.env.metadata["autoreset_mode"]

    def actions(self, actions: AnyArray) -> AnyArray:
        """Fractions of the platform, (B, N), of logits, (B, N + 1)."""
        return _shares(self._transform, actions)
