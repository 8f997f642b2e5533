"""Rewards in units of what returns have lately varied by."""

from stable_baselines3.common.vec_env import VecNormalize

from gpualloc_env.simulation.state import AnyArray

WINDOW = 20_000
"""Transitions that the estimate remembers."""


class RecentReturns(VecNormalize):
    """As stable-baselines3 normalises rewards, but that it forgets what a much worse policy met.

    A policy that knows nothing loses a hundred times as much as a trained one. With a variance over all of
    the training the critic's later errors would be too small for its optimiser.
    """

    def _update_reward(self, reward: AnyArray) -> None:
        super()._update_reward(reward)
        self.ret_rms.count = min(self.ret_rms.count, float(WINDOW))
