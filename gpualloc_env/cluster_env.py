"""`GPUClusterEnv`: one cluster, the Gymnasium shell over a batch of one."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy import ndarray

from gpualloc_env.batch import real_numbers
from gpualloc_env.cluster_batch import ClusterBatch
from gpualloc_env.env import FLOAT32, FLOAT64, WORTH_AT_RESET, GPUAllocEnv
from gpualloc_env.listing import listed
from gpualloc_env.metrics import episode_metrics
from gpualloc_env.rendering import render_cluster_rgb, render_cluster_text
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.placement import AGENT_FEATURES, GPU_FEATURES, INSTANCE_FEATURES, ClusterView
from gpualloc_env.simulation.residency import EVENTS
from gpualloc_env.simulation.state import INFO, AnyArray, plain

NUMBERS_AT_RESET = {**WORTH_AT_RESET, **dict.fromkeys(EVENTS, 0.0)}


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
        batch = self._batch
        self._requested = np.zeros((1, batch.num_agents * batch.num_gpus))
        self._action = self._requested[0].reshape(batch.num_agents, batch.num_gpus)
        self._cluster_view = batch.cluster_view_of(0)
        self._counts = plain(batch.cluster.counts)[0, : len(EVENTS)]

    @property
    def view(self) -> ClusterView:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What a policy may know, in raw units; live, so the next step overwrites it."""
        return self._cluster_view

    def _observation_and_info(self) -> tuple[dict[str, AnyArray], dict[str, Any]]:
        zeros, shown = np.zeros((len(INFO), self._batch.num_agents)), self._batch.shown
        info = {**dict(zip(INFO, zeros, strict=True)), **NUMBERS_AT_RESET}
        info["share"], info["resident"] = shown.share[0], shown.resident[0]
        return self._observation(), info

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
        batch = self._batch
        if type(action) is not ndarray or (action.dtype is not FLOAT32 and action.dtype is not FLOAT64):
            action = real_numbers("action", action)
        if action.shape != self._action.shape:
            raise ValueError(
                f"action must have shape {self._action.shape}, a fraction of each of the {batch.num_gpus} "
                f"GPUs for each agent ({listed(self.scenario.agent_names)}), got shape {action.shape}"
            )
        self._action[:] = action
        batch.advance(self._requested)
        rows, shown = batch.info[:, 0], batch.shown
        clock = self._clock.item(0)
        latency, cost, throughput, slo, shortfall, task, reward = self._worth.tolist()
        refused, cold_starts, wakes, evictions, hops = self._counts.tolist()
        info: dict[str, Any] = {
            "arrivals": rows[0],
            "queue": rows[1],
            "share": shown.share[0],
            "served": rows[3],
            "capacity": rows[4],
            "backlog": rows[5],
            "agent_reward": rows[6],
            "latency": latency,
            "cost": cost,
            "throughput": throughput,
            "slo": slo,
            "shortfall": shortfall,
            "task": task,
            "objective": (0.0 - self._total.item(0)) / clock,
            "resident": shown.resident[0],
            "refused": refused,
            "cold_starts": cold_starts,
            "wakes": wakes,
            "evictions": evictions,
            "hops": hops,
        }
        truncated = clock >= self._steps
        if truncated and self._reports:
            info["episode_metrics"] = episode_metrics(batch, 0)
        return self._observation(), reward, False, truncated, info

    def render(self) -> Any:
        """The state as text (`ansi`) or as an image (`rgb_array`)."""
        if self.render_mode == "ansi":
            return render_cluster_text(self._cluster_view, self.scenario.agent_names)
        if self.render_mode == "rgb_array":
            return render_cluster_rgb(self._cluster_view)
        return None
