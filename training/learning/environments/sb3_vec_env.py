"""The batch that PPO is trained in, which can be kept and continued."""

from stable_baselines3.common.vec_env.base_vec_env import VecEnv

from gpualloc_env.batch import Batch
from gpualloc_env.sb3 import BatchRows
from gpualloc_env.simulation.state import Array


class BatchVecEnv(BatchRows, VecEnv):
    """B environments whose state can be taken out and put back."""

    def snapshot(self) -> tuple[Batch, Array]:
        """What the environments' future depends on, for `restore`: not a copy, to be pickled at once."""
        return self._batch, self._held

    def restore(self, batch: Batch, held: Array) -> None:
        """Go on from a snapshot."""
        self._batch, self._held = batch, held
