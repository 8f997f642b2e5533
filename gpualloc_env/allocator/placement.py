"""Where agents stand: rules that read the state of a cluster and place instances, (B, N, K) bool.

All respect the memory of the GPUs. They leave an agent where it is rather than move it, and prefer a node on
which its model sleeps to one on which it would start cold.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from gpualloc_env.allocator.algorithm_1 import algorithm_1
from gpualloc_env.allocator.levels import demand
from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import AnyArray, Array

Placement = Callable[[ClusterView], AnyArray]
"""Reads a view of (B, …) arrays, returns where each agent stands, (B, N, K) bool."""
HORIZON_S = 10.0
"""Time within which a queue should be served, where demand is judged [s]."""
STAYS, WAKES = 1.0, 0.5
"""GPUs of capacity left that a resident instance, and a sleeping model, count for."""


class DemandWeights(NamedTuple):
    """What `by_demand` weighs."""

    patience_s: float = 12.0
    """Time within which a queue should be served [s]."""
    least_demand: float = 0.16
    """What every agent is taken to ask for besides [GPU]."""
    memory_exponent: float = 0.3
    """How much memory counts against an agent."""
    loyalty: float = 4.0
    """GPUs of capacity left that a resident instance, and a sleeping model, count for."""
    busy: float = 0.3
    """What each call speaks for the instance at which it is [GPU]."""


DEFAULT_WEIGHTS = DemandWeights()


@inlined
def _best_gpu(need: float, tie: Array, free: Array, left: Array, placed: AnyArray) -> int:
    """The GPU with the most capacity left that has the memory, or −1; `tie` is added to what is left."""
    best, most = -1, -np.inf
    for k in range(free.shape[0]):
        if not placed[k] and free[k] >= need and left[k] + tie[k] > most:
            best, most = k, left[k] + tie[k]
    return best


@compiled
def _assign(order: AnyArray, load: Array, need: Array, tie: Array, room: Array, placed: AnyArray) -> None:
    """Place instances in an order, one after the other, where the most capacity is left.

    Args:
        order: the agent of each instance, (B, L); −1 for none.
        load: capacity that an instance takes, (B, N) [GPU].
        need: memory that it takes, (B, N) [MB].
        tie: what speaks for each GPU besides, (B, N, K) [GPU].
        room: free memory and capacity of each GPU, (B, 2, K); used up.
        placed: where to write, (B, N, K) bool, all False.
    """
    for b in range(order.shape[0]):
        free, left = room[b, 0], room[b, 1]
        for n in range(order.shape[1]):
            i = order[b, n]
            if i >= 0:
                k = _best_gpu(need[b, i], tie[b, i], free, left, placed[b, i])
                if k >= 0:
                    placed[b, i, k] = True
                    free[k] -= need[b, i]
                    left[k] -= load[b, i]


def assign(
    view: ClusterView,
    order: AnyArray,
    load: Array,
    kept: AnyArray | None = None,
    tie: Array | None = None,
) -> AnyArray:
    """Place an instance of each agent in an order, (B, L), −1 for none, where the most capacity is left.

    Args:
        view: of (B, …) arrays.
        order: agents; one that stands in it several times gets as many instances.
        load: capacity that an instance of each agent takes, (B, N) [GPU].
        kept: instances that stand already, (B, N, K) bool; none by default.
        tie: what speaks for each instance besides, (B, N, K) [GPU]; by default that of `loyalty`.
    """
    placed = np.zeros(view.share.shape, dtype=np.bool_) if kept is None else kept.copy()
    memory = view.memory_mb - (placed * view.need_mb[:, :, None]).sum(axis=1)
    speed = view.speed - (placed * load[:, :, None]).sum(axis=1)
    tie = loyalty(view, STAYS, WAKES) if tie is None else tie
    need, room = np.ascontiguousarray(view.need_mb), np.stack((memory, speed), axis=1)
    _assign(order, np.ascontiguousarray(load), need, tie, room, placed)
    return placed


def loyalty(view: ClusterView, stays: float, wakes: float) -> Array:
    """What speaks for a resident instance and for a sleeping model, (B, N, K) [GPU of capacity left]."""
    return stays * view.resident + wakes * np.maximum(view.asleep, view.resident)


def in_turn(order: AnyArray, replicas: Array) -> AnyArray:
    """An order of agents, (B, N), with each of them as often as it has replicas, (B, N): (B, L)."""
    repeats = np.take_along_axis(replicas.astype(np.int64), order, axis=1)
    longest = int(repeats.sum(axis=1).max())
    rows = [np.repeat(agents, times) for agents, times in zip(order, repeats, strict=True)]
    return np.stack([np.pad(row, (0, longest - len(row)), constant_values=-1) for row in rows])


def everywhere(view: ClusterView) -> AnyArray:
    """Every agent on every GPU where it fits: GPU k takes agents k, k + K, … first, then the others."""
    placed = np.zeros(view.share.shape, dtype=np.bool_)
    agents, gpus = int(view.need_mb.shape[1]), len(view.speed)
    for k in range(gpus):
        own: AnyArray = np.arange(agents) % gpus != k
        free = np.full(len(placed), view.memory_mb[k])
        for i in np.argsort(own, kind="stable").tolist():
            fits = view.need_mb[:, i] <= free
            placed[:, i, k] = fits
            free -= np.where(fits, view.need_mb[:, i], 0.0)
    return placed


def best_fit_decreasing(view: ClusterView) -> AnyArray:
    """Each agent once, the greatest demand first, on the fullest GPU that has the capacity and the memory.

    Where none has the capacity, on the one with the most left.
    """
    load = demand(view, HORIZON_S)
    order = np.argsort(-load, axis=1, kind="stable")
    placed = np.zeros(view.share.shape, dtype=np.bool_)
    rows = np.arange(len(placed))
    free, left = np.tile(view.memory_mb, (len(placed), 1)), np.tile(view.speed, (len(placed), 1))
    for n in range(order.shape[1]):
        i = order[:, n]
        asked, size = load[rows, i][:, None], view.need_mb[rows, i][:, None]
        spare = left - asked
        # Fullest first among those with the capacity, then those without; nowhere without the memory.
        score = np.where(spare >= 0, 1e6 - spare, spare) + STAYS * view.resident[rows, i]
        score = np.where(free >= size, score, -np.inf)
        k = score.argmax(axis=1)
        fits = np.isfinite(score[rows, k])
        placed[rows, i, k] = fits
        free[rows, k] -= np.where(fits, size[:, 0], 0.0)
        left[rows, k] -= np.where(fits, asked[:, 0], 0.0)
    return placed


def by_popularity(view: ClusterView) -> AnyArray:
    """Greedy on demand per memory: every agent once, then copies of the most popular ones while memory lasts.

    The r-th instance of an agent counts for 1/r of its demand.
    """
    load = demand(view, HORIZON_S)
    value = load / np.maximum(view.need_mb, 1e-9)
    return assign(view, with_copies(value, value > 0, len(view.speed)), load / len(view.speed))


def by_demand(
    view: ClusterView, weights: DemandWeights = DEFAULT_WEIGHTS, attraction: Array | None = None
) -> AnyArray:
    """As `by_popularity`, but instances move less, because models take long to start.

    An agent's value is (demand + least demand)/memory^exponent, an instance is expected to take
    its part of the load as it is divided now, and what stands, sleeps or serves somewhere counts for more.

    Args:
        view: of (B, …) arrays.
        weights: of these.
        attraction: what speaks for each instance besides, (B, N, K) [GPU]; its mean over the GPUs is the
            logarithm of a factor on the agent's value. None by default.
    """
    load = demand(view, weights.patience_s)
    tie = loyalty(view, weights.loyalty, weights.loyalty) + weights.busy * view.calls
    value = (load + weights.least_demand) / np.maximum(view.need_mb, 1e-9) ** weights.memory_exponent
    if attraction is not None:
        value, tie = value * np.exp(attraction.mean(axis=2)), tie + attraction
    standing = np.maximum(1.0, view.resident.sum(axis=2))
    return assign(view, with_copies(value, load > 0, len(view.speed)), load / standing, tie=tie)


def with_copies(value: Array, used: AnyArray, gpus: int) -> AnyArray:
    """An order of instances, (B, L), of agents of some value, (B, N): each once, then their copies.

    The r-th instance of an agent counts for 1/r of its value; a copy of one that is not used, (B, N) bool,
    only takes memory.
    """
    first = np.argsort(-value, axis=1, kind="stable")
    copies = ((value * used)[:, :, None] / np.arange(2, gpus + 1)).reshape(len(value), -1)
    later = np.argsort(-copies, axis=1, kind="stable")
    worth = np.take_along_axis(copies, later, axis=1)
    return np.hstack((first, np.where(worth > 0, later // max(1, gpus - 1), -1)))


def by_levels(view: ClusterView) -> AnyArray:
    """The upper level of hierarchical Algorithm 1: as many instances as its share of the cluster is GPUs.

    Algorithm 1 divides the cluster among the agents; an agent with g GPUs stands on ⌈g⌉ of them, those of the
    nodes and GPUs with the most capacity left.
    """
    agents, gpus = view.agents, len(view.speed)
    share = algorithm_1(agents.rate, agents.min_share, agents.priority, float(gpus)) * gpus
    replicas = np.ceil(share - 1e-9).clip(1, gpus)
    order = in_turn(np.argsort(-share, axis=1, kind="stable"), replicas)
    return assign(view, order, share / replicas)
