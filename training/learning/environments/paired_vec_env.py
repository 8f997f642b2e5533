"""Environments beside twins that meet the same arrivals, so that chance does not hide what was learned."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from baselines import Policy
from gpualloc_env.action_transform import ActionTransform
from gpualloc_env.batch import Batch
from gpualloc_env.sb3 import BatchRows
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES
from gpualloc_env.simulation.state import AnyArray, Array

WINDOWS_S = (1.0, 3.0, 10.0, 30.0)
"""Times ahead over which the critic sees the mean of the arrivals to come [s]."""
AHEAD = (0.25, 4.0, 64.0)
"""Scales on which it sees how far the queues are ahead of the twin's."""
LATENCY_FLOOR_S = 0.2
"""Added to an episode's mean latency in its twin; one over the sum is the episode's weight [s]."""
TIME_LEFT_S = 30.0


class PairedVecEnv(BatchRows, VecEnv):
    """Each reward is the one of the environment less the one of its twin, in which a reference decides.

    The twin's rewards do not depend on the actions, so no policy gains by them, and most of the
    noise of the arrivals goes with them (Mao et al., "Variance Reduction for Reinforcement Learning
    in Input-Driven Environments", ICLR 2019). The same holds for the weight of an episode, one over
    its mean latency in the twin: without it the few overloaded episodes would drown the others. What
    is left of an episode's return is (J of the reference − J) times its steps and its weight.

    The observation has columns for the critic alone: the arrivals to come, how far the queues are
    from the twin's, what the twin holds and the time left. An episode's end is its end: nothing is
    expected after it.
    """

    def __init__(
        self, scenario: Scenario, num_envs: int, seed: int, transform: ActionTransform, reference: Policy
    ) -> None:
        """Arguments as in `BatchRows`, and who decides in the twins, without memory."""
        self._reference, self._twin = reference, Batch(scenario, num_envs)
        steps, shape = scenario.steps, (num_envs, len(scenario.agents))
        self._rewards: Array = np.zeros((steps, num_envs))
        self._weights: Array = np.zeros(num_envs)
        # Row t is what is seen at step t, the last one what follows the episode.
        self._queues, self._shares = np.zeros((2, steps + 1, *shape))
        self._arrived: Array = np.zeros((steps + 2, *shape))
        super().__init__(scenario, num_envs, seed, transform)
        columns = len(OBSERVATION_FEATURES) + len(WINDOWS_S) + len(AHEAD) + 2
        self.observation_space = spaces.Box(-1.0, 1.0, (shape[1], columns), np.float32)

    @property
    def scenario(self) -> Scenario:
        """What is simulated."""
        return self.batch.scenario

    def reset(self) -> AnyArray:
        """Start the next episode in all environments."""
        if self._seeds[0] is not None:
            self._twin.seed(self._seeds[0])
        super().reset()
        self._play(np.ones(self.num_envs, dtype=np.bool_))
        return self._seen()

    def step_wait(self) -> tuple[AnyArray, AnyArray, AnyArray, list[dict[str, Any]]]:
        """Advance by one step, and start the next episodes where one has ended."""
        taken = self.batch.clock.copy()
        _, _, dones, infos = super().step_wait()
        gained = self.batch.reward - self._rewards[taken, np.arange(self.num_envs)]
        rewards = (gained * self._weights).astype(np.float32)
        if dones.any():
            for k in np.flatnonzero(dones):
                infos[k]["TimeLimit.truncated"] = False
            self._play(dones)
        return self._seen(), rewards, dones, infos

    def _play(self, mask: AnyArray) -> None:
        """Let the twins of a (B,) bool mask play their next episodes to the end."""
        twin = self._twin
        twin.reset(mask)
        arrivals = twin.arrivals[:, mask]
        self._arrived[1:, mask] = np.cumsum(arrivals, axis=0)
        for t in range(twin.scenario.steps + 1):
            self._queues[t, mask] = twin.view.queue[mask]
            self._shares[t, mask] = twin.view.share[mask]
            if t < twin.scenario.steps:
                twin.step(self._reference(twin.view), mask)
                self._rewards[t, mask] = twin.reward[mask]
        latency = twin.totals["latency"][mask] / twin.scenario.steps
        self._weights[mask] = 1.0 / (latency + LATENCY_FLOOR_S)

    def _seen(self) -> AnyArray:
        """The observation and the critic's columns, (B, N, columns)."""
        batch = self.batch
        dt, last = batch.scenario.dt, len(self._arrived) - 1
        rows, following = np.arange(self.num_envs), np.minimum(batch.clock + 1, last)
        throughput = batch.agents["throughput"]
        columns: list[Array] = []
        for window in WINDOWS_S:
            steps = max(1, round(window / dt))
            coming = self._arrived[np.minimum(following + steps, last), rows] - self._arrived[following, rows]
            load = coming / (throughput * steps * dt)
            columns.append(load / (1.0 + load))
        ahead = (batch.state["queue"] - self._queues[batch.clock, rows]) / throughput
        columns += [scale * ahead / (1.0 + np.abs(scale * ahead)) for scale in AHEAD]
        columns.append(self._shares[batch.clock, rows] / batch.scenario.platform.gpus)
        left = (batch.scenario.steps - batch.clock) * dt
        columns.append(np.broadcast_to((left / (left + TIME_LEFT_S))[:, None], ahead.shape))
        return np.concatenate([batch.observation, np.stack(columns, axis=-1)], axis=-1, dtype=np.float32)

    def snapshot(self) -> dict[str, Any]:
        """What the environments' future depends on, for `restore`: not a copy, to be pickled at once."""
        played = (self._rewards, self._weights, self._queues, self._shares, self._arrived)
        return {"batch": self._batch, "held": self._held, "twin": self._twin, "played": played}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot."""
        self._batch, self._held, self._twin = (snapshot[name] for name in ("batch", "held", "twin"))
        self._rewards, self._weights, self._queues, self._shares, self._arrived = snapshot["played"]
