"""`ClusterBatch`: the arrays of B clusters."""

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from gpualloc_env.batch import Batch
from gpualloc_env.metrics import ratio
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation import cluster
from gpualloc_env.simulation.arrivals import Source
from gpualloc_env.simulation.placement import (
    AGENT_FEATURES,
    GPU_FEATURES,
    INSTANCE_FEATURES,
    ClusterView,
    Shown,
    cluster_view_of,
    one_view,
)
from gpualloc_env.simulation.residency import COUNTS, EVENTS, GPU, HOST, INSTANCE, MEMORY, RULES, Cluster
from gpualloc_env.simulation.shares import NOT_A_NUMBER, OK
from gpualloc_env.simulation.state import AnyArray, Array, names_of
from gpualloc_env.simulation.tasks import TaskLaw

MB_PER_TOKEN = 4e-6  # of a prompt on its way to another node


class ClusterBatch(Batch):
    """B independent clusters of one scenario, advanced together; all else is as `Batch` has it."""

    environment, of_clusters = "GPUCluster-v0", True

    def __init__(
        self,
        scenario: Scenario,
        num_envs: int,
        *,
        record: bool = False,
        source: Source | TaskLaw | None = None,
    ) -> None:
        """Allocate the arrays; the arguments are those of `Batch`."""
        super().__init__(scenario, num_envs, record=record, source=source)
        agents, gpus = self.num_agents, scenario.num_gpus
        self.num_gpus = gpus
        self.shares_are = f"a fraction of each of the {gpus} GPUs for each agent"
        self.cluster = Cluster(
            gpus=_gpu_records(scenario),
            rules=_rule_records(scenario),
            instances=np.zeros((num_envs, agents * gpus), INSTANCE),
            hosts=np.zeros((num_envs, agents * len(scenario.nodes)), HOST),
            memory=np.zeros((num_envs, gpus), MEMORY),
            counts=np.zeros(num_envs, COUNTS),
            totals=np.zeros(num_envs, COUNTS),
        )
        self._see()
        self._show(Shown._make(np.zeros_like(array) for array in self._new_arrays(self.info)))

    @property
    def share_shape(self) -> tuple[int, ...]:
        """Shape of one environment's action."""
        return self.num_agents, self.num_gpus

    def _see(self) -> None:
        seen = cluster_view_of(self.world, self.service, self.cluster)
        self.view: ClusterView = seen  # pyright: ignore[reportIncompatibleVariableOverride]

    def cluster_view_of(self, b: int) -> ClusterView:
        """The view of one environment, whose arrays have no leading axis."""
        return one_view(self.view, self.world, b)

    def __setstate__(self, kept: Any) -> None:
        """Build the batch again and fill its arrays."""
        super().__setstate__(kept)
        self._see()

    def own_metrics(self, b: int) -> dict[str, float]:
        """What its shares cost, and what happened to its instances and its calls on their way.

        `hot_calls`, `woken_calls` and `cold_calls` are the fractions of the dispatches that went to an
        instance with nothing left to load, to one whose model was waking, and to one that was starting cold.
        `gpu_memory_held` and `host_memory_held` are the fractions of all memory that residents and
        sleeping models take, means over the steps.
        """
        totals = {name: float(self.cluster.totals[name][b]) for name in names_of(COUNTS)}
        served, steps = float(self.recorded(b)["served"].sum()), int(self.clock[b])
        hot, woken, sent = totals["hot_calls"], totals["woken_calls"], totals["dispatched"]
        memory = sum(node.gpus * node.memory_mb for node in self.scenario.nodes)
        host = sum(node.host_memory_mb for node in self.scenario.nodes)
        return {
            **{name: totals[name] for name in EVENTS},
            "hot_calls": ratio(hot, sent),
            "woken_calls": ratio(woken, sent),
            "cold_calls": ratio(sent - hot - woken, sent),
            "gpu_memory_held": totals["gpu_mb"] / (steps * memory),
            "host_memory_held": ratio(totals["host_mb"], steps * host),
            "cost_usd": totals["usd"],
            "cost_usd_per_1k": 1000 * ratio(totals["usd"], served),
        }

    @property
    def _contents(self) -> tuple[AnyArray, ...]:
        return (*self.world, *self.cluster, *self.shown, *self.service)

    def advance(self, requested: Array, active: AnyArray | None = None) -> None:
        """As that of a batch of pools; shares are (B, N K)."""
        active, info = (self._all, np.empty(self._shapes[0])) if active is None else self._some(active)
        shown = self._new_arrays(info)
        step = self._step = self._step or self._resolved()
        problem = step(requested, active, self.world, self.service, self.cluster, shown)
        if problem != OK or active is not self._all:
            self._conclude(problem, requested, active)
        self._show(shown)

    def _new_arrays(self, info: Array) -> Shown:
        """Arrays in which a step shows what callers see, `info` among them."""
        one = self.num_envs, self.num_agents, self.num_gpus
        return Shown(
            agents=np.empty((*one[:2], len(AGENT_FEATURES)), np.float32),
            instances=np.empty((*one, len(INSTANCE_FEATURES)), np.float32),
            gpus=np.empty((one[0], one[2], len(GPU_FEATURES)), np.float32),
            outcome=info,
            share=np.empty(one),
            resident=np.empty(one, np.bool_),
        )

    def _show(self, shown: Shown) -> None:
        self.shown, self.info = shown, shown.outcome
        self.observation: Any = {"agents": shown.agents, "instances": shown.instances, "gpus": shown.gpus}

    @property
    def _stepped(self) -> tuple[Any, ...]:
        return self.world, self.service, self.cluster, self.shown

    @property
    def _compiled(self) -> Callable[..., int]:
        return cluster.step

    def reset(self, mask: AnyArray | None = None) -> None:
        """Start the next episode in all environments, or in those of a (B,) bool mask."""
        mask = self._all if mask is None else self.checked_mask(mask)
        self._draw_tasks(self._law, mask, np.empty(self._shapes[1], np.float32))
        self._forget(mask)
        shown = self._new_arrays(self.info)
        warm = self.scenario.warm

        def place(first: int, last: int) -> None:
            cluster.start(first, last, mask, warm, self.world, self.service, self.cluster, shown)

        self._drawers.run(place)
        self._show(shown)

    def _refuse(self, problem: int, requested: Array) -> NoReturn:
        if problem == NOT_A_NUMBER:
            b, s = np.argwhere(np.isnan(requested))[0].tolist()
            i, k = divmod(s, self.num_gpus)
            raise ValueError(
                f"the share of GPU {k} asked for agent {self.scenario.agent_names[i]!r} is NaN in "
                f"environment {b} at step {self.clock[b]}; give a number from 0 to 1"
            )
        self._refuse_after_the_end()


def batch_of(scenario: Scenario, num_envs: int, *, record: bool = False) -> Batch:
    """B environments of a scenario, clusters where it has nodes; arguments as in `Batch`."""
    return (ClusterBatch if scenario.nodes else Batch)(scenario, num_envs, record=record)


def _gpu_records(scenario: Scenario) -> AnyArray:
    """The GPUs node by node, (K,) of GPU."""
    gpus, k = np.zeros(scenario.num_gpus, GPU), 0
    for number, node in enumerate(scenario.nodes):
        price = scenario.usd_per_gpu_hour(node)
        gpus[k : k + node.gpus] = (number, node.memory_mb, node.speed, price, node.host_memory_mb)
        k += node.gpus
    return gpus


def _rule_records(scenario: Scenario) -> AnyArray:
    """What holds for all GPUs, (1,) of RULES."""
    platform, network, rules = scenario.platform, scenario.network, np.zeros(1, RULES)
    rules["hop_s"], rules["hop_s_per_token"] = network.hop_s, MB_PER_TOKEN / network.network_mb_per_s
    rules["wake_s"], rules["wake_s_per_mb"] = platform.wake_s, 1.0 / platform.wake_mb_per_s
    rules["keep_alive_s"] = platform.keep_alive_s
    sleep_after_s = platform.sleep_after_s
    rules["sleep_after_s"] = platform.keep_alive_s if sleep_after_s is None else sleep_after_s
    return rules
