"""The batch of clusters that PPO is trained in, beside twins that meet the same tasks."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvStepReturn

from baselines import Policy, fresh
from gpualloc_env.allocator.cluster import CLUSTER_COLUMNS, instance_rows
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.sb3 import JointRows, episode_summary
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray, Array
from training.learning.allocators.action_transform import ClusterTransform
from training.learning.environments.paired_vec_env import AHEAD, LATENCY_FLOOR_S, TIME_LEFT_S, WINDOWS_S


class ClusterVecEnv(JointRows, VecEnv):
    """B clusters and their twins; rewards, weights and the critic's columns are as `PairedVecEnv` has them.

    The observation is (N, K, F): the rows of instances, then the columns for the critic. Tasks react to what
    is decided, so the arrivals to come are those of the twin. All episodes are as long, and end together.
    An action holds for as many steps as the transform says, and these are one step of the learner.
    """

    whole = "batch"

    def __init__(
        self, scenario: Scenario, num_envs: int, seed: int, transform: ClusterTransform, reference: Policy
    ) -> None:
        """Allocate and seed the batch: environment k is the single one seeded `seed` + k.

        Args:
            scenario: what to simulate.
            num_envs: B.
            seed: of the first environment.
            transform: from the learner's actions to shares.
            reference: who decides in the twins.
        """
        self._batch, self._twin = ClusterBatch(scenario, num_envs), ClusterBatch(scenario, num_envs)
        self._transform, self._reference = transform, reference
        shape = scenario.steps + 1, num_envs, self._batch.num_agents
        self._rewards: Array = np.zeros(shape[:2])
        self._weights: Array = np.zeros(num_envs)
        # Row t is what is seen at step t, the last one what follows the episode.
        self._queues, self._arrived = np.zeros((2, *shape))
        self._shares: Array = np.zeros((*shape, self._batch.num_gpus))
        self._actions: AnyArray = np.zeros(0)
        self._held: Array = np.zeros(shape[1:])
        columns = len(CLUSTER_COLUMNS) + len(WINDOWS_S) + len(AHEAD) + 2
        box = spaces.Box(-1.0, 1.0, (*self._batch.share_shape, columns), np.float32)
        self.render_mode = None
        super().__init__(num_envs, box, transform.space)  # pyright: ignore[reportUnknownMemberType]
        self.seed(seed)

    @property
    def scenario(self) -> Scenario:
        """What is simulated."""
        return self._batch.scenario

    def reset(self) -> AnyArray:
        """Start the next episode in all environments."""
        if self._seeds[0] is not None:
            for batch in (self._batch, self._twin):
                batch.seed(self._seeds[0])
        self._reset_seeds()
        return self._start()

    def step_async(self, actions: AnyArray) -> None:
        """Keep the actions, (B, A), for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Advance as long as an action holds, and start the next episodes where these have ended."""
        batch, gained, taken = self._batch, np.zeros(self.num_envs), int(self._batch.clock[0])
        held = self._transform.steps(batch.scenario.dt)
        for t in range(taken, min(batch.scenario.steps, taken + held)):
            batch.step(self._transform(batch.view, lambda: self._actions))
            self._held += batch.outcome["share"]
            gained += batch.reward - self._rewards[t]
        rewards = (gained * self._weights).astype(np.float32)
        dones, seen = batch.done.copy(), self._seen()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if dones.all():
            for k, info in enumerate(infos):
                info.update(episode_summary(batch, k, seen[k], self._held[k]))
                info["TimeLimit.truncated"] = False
            seen = self._start()
        return seen, rewards, dones, infos

    def _start(self) -> AnyArray:
        """Begin the next episodes, and let the twins play theirs to the end."""
        self._transform, self._held[:] = self._transform.fresh(), 0.0
        self._batch.reset()
        twin, policy = self._twin, fresh(self._reference)
        twin.reset()
        for t in range(twin.scenario.steps + 1):
            self._queues[t], self._shares[t] = twin.view.agents.queue, twin.view.share
            self._arrived[t] = twin.view.agents.inflow + (self._arrived[t - 1] if t else 0.0)
            if t < twin.scenario.steps:
                twin.step(policy(twin.view))
                self._rewards[t] = twin.reward
        self._weights[:] = 1.0 / (twin.totals["latency"] / twin.scenario.steps + LATENCY_FLOOR_S)
        return self._seen()

    def _seen(self) -> AnyArray:
        """The rows of instances and the critic's columns, (B, N, K, columns)."""
        batch, t, last = self._batch, int(self._batch.clock[0]), len(self._arrived) - 1
        rows, dt, throughput = instance_rows(batch.view), batch.scenario.dt, batch.agents["throughput"]
        columns: list[Array] = []
        for window in WINDOWS_S:
            steps = max(1, round(window / dt))
            coming = self._arrived[min(t + steps, last)] - self._arrived[t]
            columns.append(coming / (coming + throughput * steps * dt))
        ahead = (batch.view.agents.queue - self._queues[t]) / throughput
        columns += [scale * ahead / (1.0 + np.abs(scale * ahead)) for scale in AHEAD]
        left = (batch.scenario.steps - t) * dt
        columns.append(np.full_like(ahead, left / (left + TIME_LEFT_S)))
        of_agents = np.broadcast_to(np.stack(columns, -1)[:, :, None], (*rows.shape[:3], len(columns)))
        return np.concatenate([rows, of_agents, self._shares[t][..., None]], axis=-1, dtype=np.float32)

    def snapshot(self) -> dict[str, Any]:
        """What the environments' future depends on, for `restore`: not a copy, to be pickled at once."""
        played = (self._rewards, self._weights, self._queues, self._arrived, self._shares)
        own = (self._batch, self._twin, self._held, self._transform)
        return {"own": own, "played": played}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self._batch, self._twin, self._held, self._transform = snapshot["own"]
        self._rewards, self._weights, self._queues, self._arrived, self._shares = snapshot["played"]
