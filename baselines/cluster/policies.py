"""Allocators of a cluster: where agents stand, and how each GPU is split among those that stand there."""

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from baselines import online
from baselines.online.rows import Remembering
from baselines.tunable import tunable
from gpualloc_env.allocator.cluster import Held
from gpualloc_env.allocator.levels import Policy, algorithm_1_by_levels, batched, parts_of, split
from gpualloc_env.allocator.placement import (
    DEFAULT_WEIGHTS,
    DemandWeights,
    Placement,
    assign,
    by_demand,
    by_levels,
    everywhere,
    in_turn,
)
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import Array


@dataclass(frozen=True)
class Placed:
    """A placement that is revised from time to time, below which a policy of one GPU splits each GPU.

    It has memory: every rollout needs an instance of its own, which `fresh` makes.
    """

    place: Placement = everywhere
    """Where agents stand."""
    lower: Policy | None = online.adaptive_smoothed
    """What splits a GPU; none is Algorithm 1 by levels, which takes the least time."""
    period_s: float = tunable(30.0, 1.0, 300.0, log=True)
    """Time between two revisions of the placement [s]."""
    _held: Held[Array] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_held", Held(self.period_s))

    def fresh(self) -> "Placed":
        """The same policy, remembering nothing."""
        return replace(self)

    def __call__(self, view: ClusterView) -> Array:
        """Fractions of each GPU, shaped as `view.share`; takes one step."""
        rows = batched(view)
        part = self._held(rows, lambda: parts_of(rows, self.place(rows)))
        given = split(self.lower, rows, part) if self.lower else algorithm_1_by_levels(rows, part)
        return given.reshape(view.share.shape)


def hierarchical(lower: Policy | None = None, period_s: float = 30.0) -> Placed:
    """Hierarchical Algorithm 1: cluster → nodes → GPUs by `by_levels`, on each GPU Algorithm 1 or another."""
    return Placed(by_levels, lower, period_s)


@dataclass(frozen=True)
class Demand(Placed):
    """Placement by demand per memory that moves little, below it receding-horizon control.

    See `by_demand` for what the constants weigh.
    """

    place: Placement = field(init=False, repr=False, compare=False)
    lower: Policy | None = online.RecedingHorizon()  # noqa: RUF009, frozen
    period_s: float = tunable(3.0, 1.0, 30.0, log=True)
    """Time between two revisions of the placement [s]."""
    patience_s: float = tunable(DEFAULT_WEIGHTS.patience_s, 2.0, 120.0, log=True)
    """Time within which a queue should be served [s]."""
    least_demand: float = tunable(DEFAULT_WEIGHTS.least_demand, 0.01, 2.0, log=True)
    """What every agent is taken to ask for besides [GPU]."""
    memory_exponent: float = tunable(DEFAULT_WEIGHTS.memory_exponent, 0.0, 1.0)
    """How much memory counts against an agent."""
    loyalty: float = tunable(DEFAULT_WEIGHTS.loyalty, 0.2, 20.0, log=True)
    """GPUs of capacity left that a resident instance, and a sleeping model, count for."""
    busy: float = tunable(DEFAULT_WEIGHTS.busy, 0.01, 4.0, log=True)
    """What each call speaks for the instance at which it is [GPU]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "place", partial(by_demand, weights=self.weights))

    @property
    def weights(self) -> DemandWeights:
        """The constants of the placement."""
        return DemandWeights(*(getattr(self, name) for name in DemandWeights._fields))


@dataclass(frozen=True)
class Replicas(Remembering):
    """As many instances of each agent as its calls ask for; none for one that has been idle for long.

    With a target of infinity it is the serverless default: one instance of what is used, kept alive for a
    while, and the least recently used ones leave where memory is short. With a finite one it is an autoscaler
    of replicas by concurrency (Knative and KEDA; kubernetes.io, Horizontal Pod Autoscaling): ⌈calls/target⌉,
    at once upwards, and downwards to the greatest number of the window.
    """

    target: float = tunable(8.0, 1.0, 64.0, log=True)
    """Calls of an agent for each of its instances."""
    window_s: float = tunable(30.0, 1.0, 300.0, log=True)
    """Time for which an instance is kept alive, or a number of them is kept [s]."""
    lower: Policy = online.adaptive_smoothed
    """What splits a GPU."""

    def __call__(self, view: ClusterView) -> Array:
        """Fractions of each GPU, shaped as `view.share`; takes one step of the window."""
        rows, memory = batched(view), self._memory
        queue, gpus = rows.agents.queue, len(rows.speed)
        ring = memory.ring(max(1, round(self.window_s / view.agents.dt)), rows.agents)
        wanted = np.ceil(queue / self.target) if self.target < np.inf else np.sign(queue)
        ring[memory.steps % len(ring)] = wanted.clip(0, gpus)
        memory.steps += 1
        replicas = ring.max(axis=0)
        load = queue / np.maximum(1.0, replicas) / np.maximum(1.0, queue.sum(axis=1, keepdims=True)) * gpus
        # The busiest instances stay, as many as are wanted.
        calls = np.where(rows.resident > 0, rows.calls, -1.0)
        rank = np.argsort(np.argsort(-calls, axis=2, kind="stable"), axis=2, kind="stable")
        kept = (rows.resident > 0) & (rank < replicas[:, :, None])
        # The least recently used comes last, and finds no memory where there is too little.
        order = in_turn(np.argsort(rows.agents.idle, axis=1, kind="stable"), replicas - kept.sum(axis=2))
        part = parts_of(rows, assign(rows, order, load, kept))
        return split(self.lower, rows, part).reshape(view.share.shape)
