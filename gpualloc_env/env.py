"""`GPUAllocEnv`: one environment, the Gymnasium shell over a batch of one."""

import math
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy import ndarray

from gpualloc_env.batch import FLOAT32, FLOAT64, Batch, real_numbers
from gpualloc_env.listing import listed
from gpualloc_env.metrics import episode_metrics
from gpualloc_env.rendering.canvas import Canvas, close_window, drawing
from gpualloc_env.rendering.pool import pool_frame, render_text
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.calls import Tasks
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES, View, view_of
from gpualloc_env.simulation.state import INFO, REWARD, TERMS, WORTH, AnyArray, names_of, plain

# The numbers of `info` are NumPy's floats: TorchRL asks each for its dtype. Unpacking takes twice as long.
_VALUES_OF = itemgetter(*(names_of(WORTH).index(name) for name in (*TERMS, "objective")))
ZERO = np.float64(0.0)


def single_spaces(num_agents: int) -> tuple[spaces.Box, spaces.Box]:
    """Observation and action space of one environment of N agents."""
    observation = spaces.Box(0.0, 1.0, (num_agents, len(OBSERVATION_FEATURES)), np.float32)
    return observation, spaces.Box(0.0, 1.0, (num_agents,), np.float32)


class Horizon:
    """What the single environments and the batches know of their episodes' length."""

    _steps: int
    _spec: EnvSpec | None = None

    @property
    def spec(self) -> EnvSpec | None:
        """How the environment was made; its limit of steps is the horizon, or lower where it was."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        if spec is not None:
            limit = spec.max_episode_steps or self._steps
            spec = replace(spec, max_episode_steps=min(limit, self._steps))
        self._spec = spec


class GPUAllocEnv(Horizon, gym.Env[Any, AnyArray]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Share a few GPUs among the agents of a serverless LLM workload, step by step.

    `docs/environment.md` has the full description: spaces, reward, start and end of an episode, arguments.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium's own declaration
        "render_modes": ["human", "rgb_array", "ansi"],
        "render_fps": 10,
    }

    def __init__(
        self,
        scenario: str | Path | Scenario = "serverless",
        *,
        episode_metrics: bool = False,
        render_mode: str | None = None,
        **changes: Any,
    ) -> None:
        """Build the environment.

        Args:
            scenario: a name in `SCENARIOS`, the path of a `.toml` file, or a scenario itself.
            episode_metrics: add `info["episode_metrics"]` at the end of an episode.
            render_mode: `human`, `rgb_array`, `ansi` or None.
            changes: the fields of `Overrides` by name, as `steps=100`.
        """
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be 'human', 'rgb_array', 'ansi' or None, got {render_mode!r}")
        if render_mode in ("human", "rgb_array"):
            drawing()
        self.scenario = load_scenario(scenario, **changes)
        self.render_mode = render_mode
        self._batch = self._batch_of(self.scenario)
        self._steps = self.scenario.steps
        self._reports = episode_metrics
        self._seeded = False
        self.observation_space, self.action_space = self._spaces()
        self._requested = np.zeros((1, math.prod(self._batch.share_shape)))
        self._look()

    def _batch_of(self, scenario: Scenario) -> Batch:
        return Batch(scenario, 1, record=True)

    def _spaces(self) -> tuple[spaces.Space[Any], spaces.Box]:
        return single_spaces(self._batch.num_agents)

    def _look(self) -> None:
        """Make the views of the batch's arrays: once, since it takes as long as the compiled step."""
        batch = self._batch
        self._action = self._requested[0].reshape(batch.share_shape)
        self._view = view_of(batch.state[0], batch.agents[0], batch.world.settings)
        self._clock, self._worth = batch.clock, plain(batch.worth)[0]

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Restore a copy or a pickle: its views must look at its own arrays."""
        self.__dict__.update(kept)
        self._look()

    @property
    def view(self) -> View:
        """What a policy may know, in raw units; live, so the next step overwrites it."""
        return self._view

    @property
    def tasks(self) -> Tasks:
        """The tasks of the episode, where agents serve calls: all of them are drawn at its reset.

        Raises:
            ValueError: the scenario's agents serve a fluid.
        """
        return self._batch.tasks(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[AnyArray, dict[str, Any]]:
        """Draw a new episode. A seed restarts the sequence of episodes; none continues it."""
        super().reset(seed=seed)
        if seed is not None or not self._seeded:
            self._batch.seed(int(self.np_random.integers(2**62)) if seed is None else seed)
            self._seeded = True
        self._batch.reset()
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._info_at_reset()

    def _info_at_reset(self) -> dict[str, Any]:
        """Zeros, since no step is taken."""
        zeros = np.zeros((len(INFO), self._batch.num_agents))
        return {**dict(zip(INFO, zeros, strict=True)), **dict.fromkeys((*TERMS, "objective"), ZERO)}

    def _observation(self) -> Any:
        return self._batch.observation[0]

    def step(self, action: AnyArray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Hold the shares that `action`, (N,) fractions of the platform, asks for during one step.

        Raises:
            TypeError: it holds no real numbers.
            ValueError: it has the wrong shape or holds a NaN.
            RuntimeError: the episode is over, or was never started.
        """
        batch = self._batch
        # The full look at what an action holds takes a tenth of a step.
        if type(action) is not ndarray or (action.dtype is not FLOAT32 and action.dtype is not FLOAT64):
            action = real_numbers("action", action)
        if action.shape != self._action.shape:
            raise ValueError(
                f"action must have shape {self._action.shape}, {batch.shares_are} "
                f"({listed(self.scenario.agent_names)}), got shape {action.shape}"
            )
        self._action[...] = action  # faster than [:]
        batch.advance(self._requested)
        rows = batch.info[0].T
        clock = self._clock.item(0)
        latency, cost, throughput, slo, shortfall, task, objective = _VALUES_OF(self._worth)
        info: dict[str, Any] = {
            "arrivals": rows[0],
            "queue": rows[1],
            "share": rows[2],
            "served": rows[3],
            "capacity": rows[4],
            "backlog": rows[5],
            "agent_reward": rows[6],
            "latency": latency,
            "cost": cost,
            "throughput": throughput,
            "slo": slo,
            "shortfall": shortfall,
            "task": task,
            "objective": objective,
        }
        truncated = clock >= self._steps
        if truncated and self._reports:
            info["episode_metrics"] = episode_metrics(batch, 0)
        if self.render_mode == "human":
            self.render()
        return self._observation(), self._worth.item(REWARD), False, truncated, info

    def episode_metrics(self) -> dict[str, Any]:
        """Metrics of the episode so far: of all of it at its end, or where a limit from outside cut it short.

        Raises:
            ValueError: it has taken no step.
        """
        if not self._seeded:
            raise ValueError("the environment has taken no step of an episode: call reset() and step() first")
        return episode_metrics(self._batch, 0)

    def render(self) -> Any:
        """The state as text (`ansi`) or as an image (`rgb_array`); `human` shows each step by itself."""
        if self.render_mode == "ansi":
            return self._text()
        if self.render_mode is None:
            return None
        frame = self._frame()
        return frame.show(self.metadata["render_fps"]) if self.render_mode == "human" else frame.pixels()

    def _text(self) -> str:
        return render_text(self._view, self.scenario.agent_names)

    def _frame(self) -> Canvas:
        return pool_frame(self._batch)

    def close(self) -> None:
        """Close the window of `human`."""
        if self.render_mode == "human":
            close_window()
