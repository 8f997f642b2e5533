"""`GPUAllocVectorEnv`: the native batch behind Gymnasium's vector interface."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from gpualloc_env.batch import Batch
from gpualloc_env.env import single_spaces
from gpualloc_env.metrics import episode_metrics
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import INFO, TERMS, AnyArray

# Names of `info` and of Gymnasium's masks beside them.
_INFO, _TERMS = (tuple((name, f"_{name}") for name in names) for names in (INFO, TERMS))


class GPUAllocVectorEnv(VectorEnv[AnyArray, AnyArray, AnyArray]):
    """B environments in one compiled call; environment k of a batch seeded s is the single one seeded s + k.

    A step after the end of an episode starts the next one and ignores its action (next-step
    autoreset). `info` holds the single environment's arrays with a leading axis of B, each
    with Gymnasium's mask of the environments that it speaks of.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium's own declaration
        "autoreset_mode": AutoresetMode.NEXT_STEP
    }

    def __init__(
        self,
        num_envs: int = 1,
        scenario: str | Path | Scenario = "serverless",
        *,
        episode_metrics: bool = False,
        render_mode: str | None = None,
        **changes: Any,
    ) -> None:
        """Build the batch.

        Args:
            num_envs: B.
            scenario: a name in `SCENARIOS`, the path of a `.toml` file, or a scenario itself.
            episode_metrics: add `info["episode_metrics"]` at the end of an episode. It needs
                every step of every episode in memory and costs more than stepping does.
            render_mode: must be None; render the single environment instead.
            changes: the fields of `Overrides` by name: `steps`, `dt`, `load`, `agents`, `trace`,
                `split` and `objective`.
        """
        if render_mode is not None:
            raise ValueError(f"a batch is not rendered; got render_mode={render_mode!r}, make the single env")
        self.scenario = load_scenario(scenario, **changes)
        self.num_envs = num_envs
        self.render_mode = None
        self._batch = Batch(self.scenario, num_envs, record=episode_metrics)
        self._seeded = False
        self._over = np.zeros(num_envs, dtype=np.bool_)
        self.single_observation_space, self.single_action_space = single_spaces(self._batch.num_agents)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property
    def view(self) -> View:
        """What a policy may know, (B, N) in raw units; live, so the next step overwrites it."""
        return self._batch.view

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[AnyArray, dict[str, Any]]:
        """Start new episodes: in all environments, or in those of `options["reset_mask"]`.

        Args:
            seed: environment k is seeded with `seed` + k; none continues the sequence of episodes.
            options: `reset_mask`, (B,) bool, restricts the reset to some environments.
        """
        if isinstance(seed, list):
            raise ValueError(f"seed must be one integer, environment k gets seed + k; got the list {seed}")
        super().reset(seed=seed)
        mask = self._reset_mask(options)
        if not self._seeded:
            self._batch.seed(int(self.np_random.integers(2**62)))
            self._seeded = True
        if seed is not None:
            self._batch.seed(seed, mask)
        self._batch.reset(mask)
        self._over = self._batch.done
        return self._batch.observation, {}

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
        """Advance the running episodes by one step, and start the next where one had ended."""
        batch = self._batch
        over = self._over
        starting = np.count_nonzero(over)
        batch.step(actions, ~over if starting else None)
        reward = batch.reward
        if starting:
            batch.reset(over)
        self._over = batch.done
        info = self._info(~over) if starting < self.num_envs else {}
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        return batch.observation, reward, terminated, self._over.copy(), info

    def _info(self, active: AnyArray) -> dict[str, Any]:
        batch = self._batch
        info: dict[str, Any] = {}
        for (name, mask), values in zip(_INFO, batch.info, strict=True):
            info[name], info[mask] = values, active
        terms: dict[str, Any] = {}
        for name, mask in _TERMS:
            terms[name], terms[mask] = batch.worth[name].copy(), active
        info["reward_terms"], info["_reward_terms"] = terms, active
        if batch.history.shape[1] and self._over.any():
            for b in np.flatnonzero(self._over):
                info = self._add_info(info, {"episode_metrics": episode_metrics(batch, int(b))}, int(b))
        return info
