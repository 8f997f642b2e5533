"""The native batch as a stable-baselines3 `VecEnv`, with the action space of a learner."""

from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from gpualloc_env.batch import Batch
from gpualloc_env.env import single_spaces
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import TERMS, AnyArray, Array
from training.learning.action_transform import ActionTransform, simplex
from training.learning.joint_vec_env import JointVecEnv


class BatchVecEnv(JointVecEnv):
    """B environments whose actions are the learner's rather than shares.

    As stable-baselines3 expects, an environment that ends is reset within the same step; its last
    observation is in `infos[k]["terminal_observation"]`, and `infos[k]["episode"]` sums it up.
    """

    whole = "batch"

    def __init__(
        self, scenario: Scenario, num_envs: int, seed: int, transform: ActionTransform | None = None
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
        super().__init__(num_envs, observation_space, self.transform.space)
        self.seed(seed)

    @property
    def next_seed(self) -> int | None:
        """Seed of the first environment from the next reset on; None where they go on as they are."""
        return self._seeds[0]

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

    def step_wait(self) -> VecEnvStepReturn:
        """Advance by one step, and start the next episodes where one has ended."""
        batch = self._batch
        batch.step(self.transform(batch.observation, self._actions, batch.view))
        self._held += batch.outcome["share"]
        rewards = batch.reward.astype(np.float32)
        dones = batch.done
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.any():
            for k in np.flatnonzero(dones):
                infos[k] = self._summary(int(k))
            batch.reset(dones)
            self._held[dones] = 0.0
        return batch.observation, rewards, dones, infos

    def _summary(self, k: int) -> dict[str, Any]:
        """What the learner and its log need to know of an episode that has just ended."""
        steps = self._batch.scenario.steps
        sums = self._batch.totals[k]
        total = float(sums["reward"])
        shares = self._held[k] / steps
        return {
            "terminal_observation": self._batch.observation[k],
            "TimeLimit.truncated": True,
            "episode": {"r": total, "l": steps, "t": 0.0},
            "objective": -total / steps,
            "terms": {name: float(sums[name]) / steps for name in TERMS},
            "shares": dict(zip(self._batch.scenario.agent_names, shares.tolist(), strict=True)),
        }

    def snapshot(self) -> tuple[Batch, Array]:
        """What the environments' future depends on, for `restore`: not a copy, to be pickled at once."""
        return self._batch, self._held

    def restore(self, batch: Batch, held: Array) -> None:
        """Go on from a snapshot.

        Raises:
            ValueError: it is of another scenario.
        """
        if batch.scenario != self._batch.scenario:
            raise ValueError(
                f"scenario {batch.scenario.name!r} is not the one that the run was started with: its "
                "description has changed; undo that, or give another --out"
            )
        self._batch, self._held = batch, held
