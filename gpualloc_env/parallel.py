"""The environment for learners of many agents: PettingZoo's parallel and turn-by-turn interfaces."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from gymnasium import spaces

from gpualloc_env.doors import needed
from gpualloc_env.env import GPUAllocEnv
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from gpualloc_env.simulation.state import INFO, AnyArray

if TYPE_CHECKING:
    ParallelEnv = object
else:
    try:
        from pettingzoo import ParallelEnv
    except ModuleNotFoundError:  # `parallel_env` says how to install it
        ParallelEnv = object

REWARDS = ("shared", "own")


class GPUAllocParallelEnv(ParallelEnv):
    """`GPUAllocEnv` with a row of the observation, (F,), and a share, (1,), for each agent by its name."""

    metadata: ClassVar[dict[str, Any]] = {
        "name": "gpualloc_v0",
        "is_parallelizable": True,
        **GPUAllocEnv.metadata,
    }

    def __init__(self, scenario: str | Path | Scenario, reward: str, options: dict[str, Any]) -> None:
        """Build it of the arguments of `parallel_env`."""
        if reward not in REWARDS:
            raise ValueError(f"reward must be one of {', '.join(REWARDS)}, got {reward!r}")
        self._env = GPUAllocEnv(scenario, **options)
        self._own = reward == "own"
        self.render_mode = self._env.render_mode
        self.possible_agents = list(self._env.scenario.agent_names)
        self.agents: list[str] = []
        self.state_space = self._env.observation_space
        features = (len(OBSERVATION_FEATURES),)
        self.observation_spaces = {
            agent: spaces.Box(0.0, 1.0, features, np.float32) for agent in self.possible_agents
        }
        self.action_spaces = {agent: spaces.Box(0.0, 1.0, (1,), np.float32) for agent in self.possible_agents}
        self._state: AnyArray = np.zeros(self.state_space.shape, np.float32)  # pyright: ignore

    def observation_space(self, agent: str) -> spaces.Box:
        """Of one agent's row."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Box:
        """Of one agent's fraction of the platform."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, AnyArray], dict[str, dict[str, float]]]:
        """Draw a new episode, as `GPUAllocEnv.reset` does."""
        self._state, info = self._env.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        return self._rows(), self._infos(info)

    def step(self, actions: dict[str, AnyArray]) -> tuple[dict[str, Any], ...]:
        """Hold the shares that all agents ask for during one step; all of them end together.

        Raises:
            RuntimeError: the episode is over, or was never started.
            ValueError: an agent has no action, or one of another size.
        """
        if not self.agents:
            raise RuntimeError("the episode is over, or was never started: call reset()")
        for agent in self.agents:
            if agent not in actions or np.size(actions[agent]) != 1:
                raise ValueError(
                    f"actions must hold one number for each agent, in an array of shape (1,); agent "
                    f"{agent!r} has {actions.get(agent)!r}"
                )
        asked = np.array([np.ravel(actions[agent])[0] for agent in self.agents])
        self._state, reward, _, truncated, info = self._env.step(asked)
        rewards = info["agent_reward"].tolist() if self._own else [reward] * len(self.agents)
        results = (
            self._rows(),
            dict(zip(self.agents, rewards, strict=True)),
            dict.fromkeys(self.agents, False),
            dict.fromkeys(self.agents, truncated),
            self._infos(info),
        )
        if truncated:
            self.agents = []
        return results

    def _rows(self) -> dict[str, AnyArray]:
        return dict(zip(self.agents, self._state, strict=True))

    def _infos(self, info: dict[str, Any]) -> dict[str, dict[str, float]]:
        """What the step did for each agent, and J of the episode so far."""
        columns = zip(*(info[name].tolist() for name in INFO), strict=True)
        return {
            agent: {**dict(zip(INFO, column, strict=True)), "objective": info["objective"]}
            for agent, column in zip(self.agents, columns, strict=True)
        }

    def state(self) -> AnyArray:
        """What all agents see together, (N, F): for a critic that they share."""
        return self._state

    def episode_metrics(self) -> dict[str, Any]:
        """Metrics of the episode so far, as in `GPUAllocEnv`."""
        return self._env.episode_metrics()

    def render(self) -> Any:
        """As in `GPUAllocEnv`."""
        return self._env.render()

    def close(self) -> None:
        """Nothing to release but what renders."""
        self._env.close()


def parallel_env(
    scenario: str | Path | Scenario = "serverless", *, reward: str = "shared", **options: Any
) -> GPUAllocParallelEnv:
    """PettingZoo's parallel interface: all agents ask for their shares at once.

    Args:
        scenario: a name in `SCENARIOS`, the path of a `.toml` file, or a scenario itself.
        reward: `shared` gives every agent the reward of the whole, `own` each its part, `agent_reward`.
        options: other arguments of `GPUAllocEnv`.

    Raises:
        ImportError: PettingZoo is not installed.
    """
    needed("pettingzoo", "pettingzoo")
    return GPUAllocParallelEnv(scenario, reward, options)


def env(scenario: str | Path | Scenario = "serverless", *, reward: str = "shared", **options: Any) -> Any:
    """PettingZoo's turn-by-turn interface (AEC): agents ask one after another, and the last one's turn steps.

    Arguments and errors as in `parallel_env`.
    """
    utils: Any = needed("pettingzoo.utils", "pettingzoo")
    return utils.OrderEnforcingWrapper(
        utils.parallel_to_aec(parallel_env(scenario, reward=reward, **options))
    )
