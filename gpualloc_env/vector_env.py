"""`GPUAllocVectorEnv`: the native batch behind Gymnasium's vector interface."""

from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from gpualloc_env.batch import Batch
from gpualloc_env.env import Horizon, single_spaces
from gpualloc_env.metrics import episode_metrics
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View, view_of
from gpualloc_env.simulation.state import INFO, REWARD, TERMS, AnyArray, plain

_NAMES = (*INFO, *TERMS, "objective")
_SHARED = ("scenario", "render_mode", "metadata", "spec")


class GPUAllocVectorEnv(Horizon, VectorEnv[Any, AnyArray, AnyArray]):  # pyright: ignore[reportIncompatibleVariableOverride]
    """B environments in one compiled call; environment k of a batch seeded s is the single one seeded s + k.

    Every array, `info` included, is the one that `SyncVectorEnv` makes of B single environments
    in the same autoreset mode.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium's own declaration
        "autoreset_mode": AutoresetMode.NEXT_STEP
    }

    def __init__(
        self,
        num_envs: int = 1,
        scenario: str | Path | Scenario = "serverless",
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        episode_metrics: bool = False,
        render_mode: str | None = None,
        **changes: Any,
    ) -> None:
        """Build the batch.

        Args:
            num_envs: B.
            scenario: a name in `SCENARIOS`, the path of a `.toml` file, or a scenario itself.
            autoreset_mode: what follows the end of an episode. `NEXT_STEP`: the next call starts a new
                one and ignores its action. `SAME_STEP`: the same call does, and `info` holds what
                ended as `final_obs` and `final_info`. `DISABLED`: the caller resets with a `reset_mask`.
            max_episode_steps: cut episodes short after so many steps; the traffic stays the scenario's.
            episode_metrics: add `info["episode_metrics"]` at the end of an episode. It needs
                every step of every episode in memory and costs more than stepping does.
            render_mode: must be None; render the single environment instead.
            changes: the fields of `Overrides` by name, as `steps=100`.
        """
        if render_mode is not None:
            raise ValueError(f"a batch is not rendered; got render_mode={render_mode!r}, make the single env")
        if max_episode_steps == -1:  # as in `gym.make`
            max_episode_steps = None
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be at least 1, or -1 for none, got {max_episode_steps}")
        self.scenario = load_scenario(scenario, **changes)
        self.num_envs = num_envs
        self.render_mode = None
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._steps = min(self.scenario.steps, max_episode_steps or self.scenario.steps)
        self._batch = self._batch_of(self.scenario, record=episode_metrics)
        self._reports = episode_metrics
        self._seeded = False
        self._none, self._all = np.zeros(num_envs, dtype=np.bool_), np.ones(num_envs, dtype=np.bool_)
        self._over = self._none
        self._masks = tuple(f"_{name}" for name in self._columns(self._worth()))
        observation_space, self.single_action_space = self._spaces()
        self.single_observation_space = observation_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def _batch_of(self, scenario: Scenario, *, record: bool) -> Batch:
        return Batch(scenario, self.num_envs, record=record)

    def _spaces(self) -> tuple[Space[Any], Box]:
        return single_spaces(self._batch.num_agents)

    @property
    def view(self) -> View:
        """What a policy may know, (B, N) in raw units; live, so the next step overwrites it."""
        return self._batch.view

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """What `name` is in each environment, called with the arguments where it is a function.

        Raises:
            AttributeError: the environments have no such attribute of their own.
            ValueError: `episode_metrics` before the first step.
        """
        if name in _SHARED:
            return (getattr(self, name),) * self.num_envs
        if name in ("observation_space", "action_space"):
            return (getattr(self, f"single_{name}"),) * self.num_envs
        rows = range(self.num_envs)
        if name == "view":
            return tuple(self._view_of(b) for b in rows)
        if name == "tasks":
            return tuple(self._batch.tasks(b) for b in rows)
        if name == "episode_metrics":
            if not self._seeded:
                raise ValueError("there is no step of an episode: call reset() and step() first")
            return tuple(episode_metrics(self._batch, b, *args, **kwargs) for b in rows)
        known = ", ".join(("view", "tasks", "episode_metrics", "observation_space", "action_space", *_SHARED))
        raise AttributeError(f"the environments of a batch have no {name!r} of their own; there are {known}")

    def _view_of(self, b: int) -> Any:
        batch = self._batch
        return view_of(batch.state[b], batch.agents[b], batch.world.settings)

    def _observation_of(self, b: int) -> Any:
        return self._batch.observation[b]

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """The attribute `name` of each environment, as `call` finds it."""
        return self.call(name)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[AnyArray, dict[str, Any]]:
        """Start new episodes: in all environments, or in those of `options["reset_mask"]`.

        Args:
            seed: environment k is seeded with `seed` + k, or with `seed[k]` of a list; None, there
                too, continues the sequence of episodes.
            options: `reset_mask`, (B,) bool, restricts the reset to some environments.
        """
        if seed is not None and not isinstance(seed, int | np.integer):
            seed = self._checked_seeds(seed)
        super().reset(seed=None if isinstance(seed, list) else seed)
        mask = self._reset_mask(options)
        if not self._seeded:
            self._batch.seed(int(self.np_random.integers(2**62)))
            self._seeded = True
        if seed is not None:
            self._batch.seed(seed, mask)
        self._batch.reset(mask)
        fresh = self._all.copy() if mask is None else mask.copy()
        self._over = self._over & ~fresh
        columns = self._columns(self._worth())
        self._clear(columns, self._all)
        return self._batch.observation, self._named(columns, fresh)

    def _checked_seeds(self, seeds: Sequence[int | None]) -> list[int | None]:
        """The seeds as a list, one for each environment."""
        if not hasattr(seeds, "__len__"):
            raise TypeError(f"seed must be an integer or a list of {self.num_envs}, got {seeds!r}")
        if len(seeds) != self.num_envs:
            raise ValueError(f"seed must be one integer or a list of {self.num_envs}, got {len(seeds)} seeds")
        checked = [None if seed is None else index(seed) for seed in seeds]
        if any(seed is not None and seed < 0 for seed in checked):
            raise ValueError(f"seeds must be 0 or more, got {checked}")
        return checked

    def _reset_mask(self, options: dict[str, Any] | None) -> AnyArray | None:
        """Which environments to reset; None for all."""
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return None
        try:
            mask = self._batch.checked_mask(mask)
        except ValueError as error:
            raise ValueError(f"options['reset_mask']: {error}") from None
        if not mask.any():
            raise ValueError(f"options['reset_mask'] must select at least one environment, got {mask!r}")
        return mask

    def step(self, actions: AnyArray) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray, dict[str, Any]]:
        """Advance the running episodes by one step, and start the next as `autoreset_mode` says.

        Raises:
            RuntimeError: an episode is over, and its reset is left to the caller.
        """
        batch, starting = self._batch, self._over
        some = np.count_nonzero(starting) > 0
        if some and self.autoreset_mode is AutoresetMode.DISABLED:
            raise RuntimeError(
                f"the episodes of environments {np.flatnonzero(starting).tolist()} are over: reset them with "
                "options={'reset_mask': mask}, or make the batch with another autoreset_mode"
            )
        batch.step(actions, ~starting if some else None)
        worth, ended = self._worth(), batch.clock >= self._steps
        columns = self._columns(worth)
        if some:
            batch.reset(starting)
            ended &= ~starting
            self._clear(columns, starting)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and ended.any():
            info = self._restart(ended, columns)
        else:
            self._over = ended
            info = self._with_metrics(self._named(columns, self._all.copy()), ended)
        return batch.observation, worth[REWARD], self._none.copy(), ended.copy(), info

    def _worth(self) -> AnyArray:
        """What the step just taken was worth, (columns of WORTH, B)."""
        return plain(self._batch.worth).copy().T

    def _columns(self, worth: AnyArray) -> dict[str, AnyArray]:
        """What `info` shows of the step just taken, by name, (B, …)."""
        outcome = self._batch.info.transpose(2, 0, 1)[: len(INFO)]
        return dict(zip(_NAMES, (*outcome, *worth[: len(TERMS)], worth[-1]), strict=True))

    def _clear(self, columns: dict[str, AnyArray], mask: AnyArray) -> None:
        """Let the columns show environments of a (B,) bool mask as they are at the start of an episode."""
        for values in columns.values():
            values[mask] = 0

    def _restart(self, ended: AnyArray, columns: dict[str, AnyArray]) -> dict[str, Any]:
        """Start the next episodes of a (B,) bool mask; `info` shows how the last ones ended."""
        batch, final_obs = self._batch, np.full(self.num_envs, None, dtype=object)
        for b in np.flatnonzero(ended).tolist():
            final_obs[b] = self._observation_of(b)
        last = {name: values.copy() for name, values in columns.items()}
        for values in last.values():
            values[~ended] = 0
        final = self._with_metrics(self._named(last, ended.copy()), ended)
        batch.reset(ended)
        self._clear(columns, ended)
        info = self._named(columns, self._all.copy())
        info["final_obs"], info["_final_obs"] = final_obs, ended.copy()
        info["final_info"], info["_final_info"] = final, ended.copy()
        return info

    def _with_metrics(self, info: dict[str, Any], ended: AnyArray) -> dict[str, Any]:
        if self._reports:
            for b in np.flatnonzero(ended).tolist():
                info = self._add_info(info, {"episode_metrics": episode_metrics(self._batch, b)}, b)
        return info

    def _named(self, columns: dict[str, AnyArray], mask: AnyArray) -> dict[str, Any]:
        """`info` of its columns, with Gymnasium's masks of the environments that they speak of."""
        return {**columns, **dict.fromkeys(self._masks, mask)}
