"""The native batch as a stable-baselines3 `VecEnv`, without importing that library before it is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from gpualloc_env.action_transform import ActionTransform, simplex
from gpualloc_env.batch import Batch
from gpualloc_env.doors import needed
from gpualloc_env.env import single_spaces
from gpualloc_env.scenario.loading import load_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import TERMS, AnyArray, Array

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv
else:
    VecEnv = object


class JointRows(VecEnv):
    """Environments that share their attributes: none of them can be called, changed or wrapped alone."""

    whole: ClassVar[str]
    """What they are together, as messages call it."""

    def close(self) -> None:
        """Nothing to release."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same attribute for each environment asked for."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: the environments share their attributes."""
        raise AttributeError(
            f"cannot set {attr_name!r}: the environments of a {self.whole} share one scenario"
        )

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Refuse: there are no single environments to call."""
        raise AttributeError(f"cannot call {method_name!r}: a {self.whole} has no single environments")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No environment is wrapped."""
        return [False for _ in self._get_indices(indices)]


class BatchRows(JointRows):
    """B environments whose actions are the learner's rather than shares.

    As stable-baselines3 expects, an environment that ends is reset within the same step; its last
    observation is in `infos[k]["terminal_observation"]`, and `infos[k]["episode"]` sums it up.
    """

    whole = "batch"

    def __init__(
        self, scenario: Scenario, num_envs: int, seed: int | None, transform: ActionTransform | None = None
    ) -> None:
        """Allocate and seed the batch: environment k is the single one seeded `seed` + k.

        Args:
            scenario: what to simulate.
            num_envs: B.
            seed: of the first environment.
            transform: from the learner's actions to shares; by default shares on a simplex.
        """
        self._batch = Batch(scenario, num_envs)
        self._actions: AnyArray = np.zeros(0)
        self._held: Array = np.zeros((num_envs, self._batch.num_agents))
        self.transform = transform or simplex(self._batch.num_agents)
        observation_space, _ = single_spaces(self._batch.num_agents)
        self.render_mode = None
        super().__init__(num_envs, observation_space, self.transform.space)  # pyright: ignore[reportUnknownMemberType]
        self.seed(seed)

    @property
    def batch(self) -> Batch:
        """The environments themselves."""
        return self._batch

    def reset(self) -> AnyArray:
        """Start the next episode in all environments."""
        if self._seeds[0] is not None:
            self._batch.seed(self._seeds[0])
        self._reset_seeds()
        self._batch.reset()
        self._held[:] = 0.0
        return self._batch.observation

    def step_async(self, actions: AnyArray) -> None:
        """Keep the actions, (B, A), for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[AnyArray, AnyArray, AnyArray, list[dict[str, Any]]]:
        """Advance by one step, and start the next episodes where one has ended."""
        batch = self._batch
        batch.step(self.transform(batch.observation, self._actions, batch.view))
        self._held += batch.outcome["share"]
        rewards = batch.reward.astype(np.float32)
        dones = batch.done
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.any():
            for k in np.flatnonzero(dones):
                infos[k] = episode_summary(batch, int(k), batch.observation[k], self._held[k])
            batch.reset(dones)
            self._held[dones] = 0.0
        return batch.observation, rewards, dones, infos


def episode_summary(batch: Batch, k: int, last: AnyArray, held: Array) -> dict[str, Any]:
    """What the learner and its log need to know of an episode of environment k that has just ended.

    Args:
        batch: the environments.
        k: which of them.
        last: what is observed after the episode.
        held: sums over the steps of the shares held, (N,) [GPU].
    """
    steps, sums = batch.scenario.steps, batch.totals[k]
    total = float(sums["reward"])
    return {
        "terminal_observation": last,
        "TimeLimit.truncated": True,
        "episode": {"r": total, "l": steps, "t": 0.0},
        "objective": -total / steps,
        "terms": {name: float(sums[name]) / steps for name in TERMS},
        "shares": dict(zip(batch.scenario.agent_names, (held / steps).tolist(), strict=True)),
    }


def sb3_vec_env(
    num_envs: int,
    scenario: str | Path | Scenario = "serverless",
    *,
    seed: int | None = None,
    **changes: Any,
) -> VecEnv:
    """The native batch for the learners of stable-baselines3, with the actions of `SimplexAction`.

    Args:
        num_envs: B.
        scenario: a name in `SCENARIOS`, the path of a `.toml` file, or a scenario itself.
        seed: environment k is the single one seeded `seed` + k; None draws one.
        changes: the fields of `Overrides` by name.

    Raises:
        ImportError: stable-baselines3 is not installed.
    """
    base: Any = needed("stable_baselines3.common.vec_env", "train").VecEnv
    vec_env = type("BatchVecEnv", (BatchRows, base), {"__module__": __name__})
    return vec_env(load_scenario(scenario, **changes), num_envs, seed)
