"""`GPUClusterEnv`: one cluster, the Gymnasium shell over a batch of one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.env import ZERO, GPUAllocEnv
from gpualloc_env.rendering.canvas import Canvas
from gpualloc_env.rendering.cluster import cluster_frame, render_text
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.placement import AGENT_FEATURES, GPU_FEATURES, INSTANCE_FEATURES, ClusterView
from gpualloc_env.simulation.residency import EVENTS
from gpualloc_env.simulation.state import AnyArray, plain


def cluster_spaces(batch: ClusterBatch) -> tuple[spaces.Dict, spaces.Box]:
    """Observation and action space of one environment of a batch of clusters."""
    agents, gpus = batch.num_agents, batch.num_gpus
    shapes = {
        "agents": (agents, len(AGENT_FEATURES)),
        "instances": (agents, gpus, len(INSTANCE_FEATURES)),
        "gpus": (gpus, len(GPU_FEATURES)),
    }
    parts: dict[str, spaces.Space[Any]] = {
        name: spaces.Box(0.0, 1.0, shape, np.float32) for name, shape in shapes.items()
    }
    return spaces.Dict(parts), spaces.Box(0.0, 1.0, (agents, gpus), np.float32)


class GPUClusterEnv(GPUAllocEnv):
    """Place LLM agents on the GPUs of a cluster and share each GPU among them, step by step.

    `docs/cluster.md` has the full description. All that is not said here is as `GPUAllocEnv` has it.
    """

    _batch: ClusterBatch

    def __init__(self, scenario: str | Path | Scenario = "cluster-small", **options: Any) -> None:
        """Build the environment.

        Args:
            scenario: a name in `CLUSTERS`, the path of a `.toml` file, or a scenario itself, with nodes.
            options: those of `GPUAllocEnv`.
        """
        super().__init__(scenario, **options)

    def _batch_of(self, scenario: Scenario) -> ClusterBatch:
        return ClusterBatch(scenario, 1, record=True)

    def _spaces(self) -> tuple[spaces.Dict, spaces.Box]:
        return cluster_spaces(self._batch)

    def _look(self) -> None:
        super()._look()
        self._cluster_view = self._batch.cluster_view_of(0)
        self._counts = plain(self._batch.cluster.counts)[0, : len(EVENTS)]

    @property
    def view(self) -> ClusterView:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What a policy may know, in raw units; live, so the next step overwrites it."""
        return self._cluster_view

    def _info_at_reset(self) -> dict[str, Any]:
        return self._with_cluster(super()._info_at_reset(), [ZERO] * len(EVENTS))

    def _with_cluster(self, info: dict[str, Any], counts: Iterable[float]) -> dict[str, Any]:
        """The info of one pool of GPUs, with what a cluster has in its place and besides."""
        shown = self._batch.shown
        info["share"], info["resident"] = shown.share[0], shown.resident[0]
        info.update(zip(EVENTS, counts, strict=True))
        return info

    def _observation(self) -> dict[str, AnyArray]:
        shown = self._batch.shown
        return {"agents": shown.agents[0], "instances": shown.instances[0], "gpus": shown.gpus[0]}

    def step(self, action: AnyArray) -> tuple[dict[str, AnyArray], float, bool, bool, dict[str, Any]]:
        """Hold the shares that `action`, (N, K) fractions of each GPU, asks for during one step.

        Raises:
            TypeError: it holds no real numbers.
            ValueError: it has the wrong shape or holds a NaN.
            RuntimeError: the episode is over, or was never started.
        """
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, self._with_cluster(info, self._counts)

    def _text(self) -> str:
        return render_text(self._cluster_view, self.scenario.agent_names)

    def _frame(self) -> Canvas:
        return cluster_frame(self._batch)
