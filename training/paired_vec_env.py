"""Environments beside twins that meet the same arrivals, so that chance does not hide what was learned."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn, VecEnvWrapper

from baselines import Policy
from gpualloc_env.batch import Batch
from gpualloc_env.state import HELD, QUEUE, THROUGHPUT, AnyArray, Array
from training.sb3_vec_env import BatchVecEnv

WINDOWS_S = (1.0, 3.0, 10.0, 30.0)
"""Times ahead over which the critic sees the mean of the arrivals to come [s]."""
AHEAD = (4.0, 64.0)
"""Scales on which it sees how far the queues are ahead of the twin's."""
_TIME_LEFT_S = 30.0


class PairedVecEnv(VecEnvWrapper):
    """Each reward is the one of the environment less the one of its twin, in which a reference decides.

    The twin's rewards do not depend on the actions, so no policy gains by them, and most of the
    noise of the arrivals goes with them: what is left of an episode's return is
    (J of the reference − J) times its steps. For the same reason the observation has columns for the
    critic alone: the arrivals to come, how far the queues are from the twin's, what the twin holds
    and the time left (Mao et al., "Variance Reduction for Reinforcement Learning in Input-Driven
    Environments", ICLR 2019). An episode's end is its end: nothing is expected after it.
    """

    def __init__(self, env: BatchVecEnv, reference: Policy) -> None:
        """Add the twins.

        Args:
            env: where the learner acts.
            reference: who decides in the twins; has no memory.
        """
        self.env = env
        self._reference = reference
        self._twin = Batch(env.batch.scenario, env.num_envs)
        self._arrived: Array = np.zeros(0)
        assert env.observation_space.shape is not None
        agents, features = env.observation_space.shape
        columns = features + len(WINDOWS_S) + len(AHEAD) + 2
        super().__init__(env, observation_space=spaces.Box(-1.0, 1.0, (agents, columns), np.float32))

    def reset(self) -> AnyArray:
        """Start the next episode in all environments."""
        if self.env.next_seed is not None:
            self._twin.seed(self.env.next_seed)
        self.env.reset()
        self._twin.reset()
        self._look_ahead()
        return self._seen()

    def step_wait(self) -> VecEnvStepReturn:
        """Advance by one step, and start the next episodes where one has ended."""
        _, _, dones, infos = self.env.step_wait()
        twin = self._twin
        twin.step(self._reference(twin.view))
        rewards = (self.env.batch.reward - twin.reward).astype(np.float32)
        if dones.any():
            for k in np.flatnonzero(dones):
                infos[k]["TimeLimit.truncated"] = False
            twin.reset(dones)
            self._look_ahead()
        return self._seen(), rewards, dones, infos

    def _look_ahead(self) -> None:
        """Sum up the arrivals of all episodes: row t is what arrives before step t."""
        arrivals = self._twin.arrivals
        self._arrived = np.concatenate([np.zeros_like(arrivals[:1]), np.cumsum(arrivals, axis=0)])

    def _seen(self) -> AnyArray:
        """The observation and the critic's columns, (B, N, columns)."""
        batch, twin = self.env.batch, self._twin
        dt, last = batch.scenario.dt, len(self._arrived) - 1
        rows, following = np.arange(self.num_envs), np.minimum(batch.clock + 1, last)
        throughput = batch.agents[:, :, THROUGHPUT]
        columns: list[Array] = []
        for window in WINDOWS_S:
            steps = max(1, round(window / dt))
            coming = self._arrived[np.minimum(following + steps, last), rows] - self._arrived[following, rows]
            load = coming / (throughput * steps * dt)
            columns.append(load / (1.0 + load))
        ahead = (batch.state[:, :, QUEUE] - twin.state[:, :, QUEUE]) / throughput
        columns += [scale * ahead / (1.0 + np.abs(scale * ahead)) for scale in AHEAD]
        columns.append(twin.state[:, :, HELD] / batch.scenario.platform.gpus)
        left = (batch.scenario.steps - batch.clock) * dt
        columns.append(np.broadcast_to((left / (left + _TIME_LEFT_S))[:, None], ahead.shape))
        return np.concatenate([batch.observation, np.stack(columns, axis=-1)], axis=-1, dtype=np.float32)

    def snapshot(self) -> dict[str, Any]:
        """What the environments' future depends on, for `restore`: not a copy, to be pickled at once."""
        batch, held = self.env.snapshot()
        return {"batch": batch, "held": held, "twin": self._twin}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from a snapshot.

        Raises:
            ValueError: it is of another scenario.
        """
        self.env.restore(snapshot["batch"], snapshot["held"])
        self._twin = snapshot["twin"]
        self._look_ahead()
