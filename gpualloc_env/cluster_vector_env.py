"""`GPUClusterVectorEnv`: the native batch of clusters behind Gymnasium's vector interface."""

from pathlib import Path
from typing import Any

from gymnasium import spaces

from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.cluster_env import cluster_spaces
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.residency import EVENTS
from gpualloc_env.simulation.state import AnyArray
from gpualloc_env.vector_env import GPUAllocVectorEnv


class GPUClusterVectorEnv(GPUAllocVectorEnv):
    """B clusters in one compiled call; all that is not said here is as `GPUAllocVectorEnv` has it."""

    _batch: ClusterBatch

    def __init__(
        self, num_envs: int = 1, scenario: str | Path | Scenario = "cluster-small", **options: Any
    ) -> None:
        """Build the batch.

        Args:
            num_envs: B.
            scenario: a name in `CLUSTERS`, the path of a `.toml` file, or a scenario itself, with nodes.
            options: those of `GPUAllocVectorEnv`.
        """
        super().__init__(num_envs, scenario, **options)

    def _batch_of(self, scenario: Scenario, *, record: bool) -> ClusterBatch:
        return ClusterBatch(scenario, self.num_envs, record=record)

    def _spaces(self) -> tuple[spaces.Dict, spaces.Box]:
        return cluster_spaces(self._batch)

    @property
    def view(self) -> ClusterView:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What a policy may know, (B, N, …) in raw units; live, so the next step overwrites it."""
        return self._batch.view

    def _view_of(self, b: int) -> ClusterView:
        return self._batch.cluster_view_of(b)

    def _observation_of(self, b: int) -> dict[str, AnyArray]:
        return {name: part[b] for name, part in self._batch.observation.items()}

    def _columns(self, worth: AnyArray) -> dict[str, AnyArray]:
        batch, columns = self._batch, super()._columns(worth)
        columns["share"], columns["resident"] = batch.shown.share, batch.shown.resident.copy()
        columns.update({name: batch.cluster.counts[name].copy() for name in EVENTS})
        return columns

    def _clear(self, columns: dict[str, AnyArray], mask: AnyArray) -> None:
        super()._clear(columns, mask)
        columns["resident"][mask] = self._batch.shown.resident[mask]
