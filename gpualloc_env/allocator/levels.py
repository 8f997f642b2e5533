"""From the state of a cluster to one single-GPU problem for each GPU, and back."""

from collections.abc import Callable

import numpy as np

from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.placement import ROWS, ClusterView
from gpualloc_env.simulation.state import AnyArray, Array

Policy = Callable[[View], Array]
"""A policy of one GPU: reads a view of (B, N) arrays, returns fractions of the GPU of the same shape."""


def batched(view: ClusterView) -> ClusterView:
    """A view of one environment as one of a batch of one; a batch's own as it is."""
    if view.share.ndim == 3:
        return view
    rows = {name: getattr(view, name)[None] for name in ROWS}
    agents = (values[None] if isinstance(values, np.ndarray) else values for values in view.agents)
    return view._replace(agents=View._make(agents), **rows)


def demand(view: ClusterView, horizon_s: float) -> Array:
    """GPUs of speed 1 that keep up with each agent's rate and serve its queue within a time, (B, N)."""
    agents = view.agents
    return (agents.rate + agents.queue / horizon_s) / agents.throughput


def parts_of(view: ClusterView, placed: AnyArray) -> Array:
    """The part of an agent's work for each GPU, (B, N, K): by their speeds among those on which it stands."""
    weight = placed * view.speed
    return weight / np.maximum(weight.sum(axis=2, keepdims=True), 1e-300)


def gpu_views(view: ClusterView, part: Array) -> View:
    """One row for each GPU of each environment, (B K, N): the agents that stand there and what is theirs.

    An agent's rate, inflow and calls that wait at the agent itself are divided by their parts, (B, N, K), see
    `parts_of`; a GPU's speed multiplies the agents' base throughput. Those without a part have no work there
    and no minimum share.
    """
    batch, agents, gpus = part.shape
    placed, whole = part > 0, view.agents

    def rows(values: AnyArray) -> Array:
        return np.ascontiguousarray(np.swapaxes(values, 1, 2)).reshape(batch * gpus, agents)

    def everywhere(values: AnyArray) -> AnyArray:
        return np.broadcast_to(values[:, :, None], part.shape)

    same = {
        name: rows(everywhere(getattr(whole, name)))
        for name in ("kappa", "priority", "cold_start", "slo", "oldest_age")
    }
    slower = {
        name: rows(everywhere(getattr(whole, name)) / view.speed)
        for name in ("iteration", "iteration_per_call", "prefill_per_token")
    }
    own = {name: rows(getattr(view, name)) for name in ("share", "idle", "loading", "running", "kv_used")}
    divided = {
        name: rows(everywhere(getattr(whole, name)) * part)
        for name in ("inflow", "rate", "waiting", "prefill")
    }
    return whole._replace(
        queue=rows((view.calls + everywhere(view.held) * part) * placed),
        throughput=rows(everywhere(whole.throughput) * view.speed),
        min_share=rows(everywhere(whole.min_share) * placed),
        gpus=1.0,
        max_share=min(1.0, whole.max_share),
        **same,
        **slower,
        **own,
        **divided,
    )


def split(policy: Policy, view: ClusterView, part: Array) -> Array:
    """Fractions of each GPU, (B, N, K), that a policy of one GPU gives to the agents with a part of it.

    What it gives to those that do not stand there goes to those that do, in proportion.
    """
    batch, agents, gpus = part.shape
    given = policy(gpu_views(view, part)).reshape(batch, gpus, agents)
    granted = np.swapaxes(given, 1, 2) * (part > 0)
    kept = granted.sum(axis=1, keepdims=True)
    return granted * np.where(kept > 0, given.sum(axis=2)[:, None] / np.where(kept > 0, kept, 1.0), 0.0)


@compiled
def _algorithm_1_by_levels(work: Array, min_share: Array, part: Array, sums: Array, fractions: Array) -> None:
    """Write Algorithm 1's fractions of each GPU, (B, N, K).

    Args:
        work: λ R / P, (B, N).
        min_share: R, (B, N) [GPU].
        part: of an agent's work for each GPU, (B, N, K).
        sums: workspace for two numbers of each GPU, (2, K).
        fractions: where to write.
    """
    total, allocated = sums[0], sums[1]
    for b in range(fractions.shape[0]):
        for k in range(total.shape[0]):
            total[k] = allocated[k] = 0.0
        for i in range(fractions.shape[1]):
            for k in range(total.shape[0]):
                total[k] += work[b, i] * part[b, i, k]
        for k in range(total.shape[0]):
            total[k] = 1.0 / total[k] if total[k] > 0.0 else 0.0
        for i in range(fractions.shape[1]):
            for k in range(total.shape[0]):
                # Where no work is to be done on a GPU nobody gets any of it.
                least = min_share[b, i] if part[b, i, k] > 0.0 and total[k] > 0.0 else 0.0
                own = max(least, work[b, i] * part[b, i, k] * total[k])
                fractions[b, i, k] = own
                allocated[k] += own
        for k in range(total.shape[0]):
            allocated[k] = 1.0 / allocated[k] if allocated[k] > 1.0 else 1.0
        for i in range(fractions.shape[1]):
            for k in range(total.shape[0]):
                fractions[b, i, k] *= allocated[k]


def algorithm_1_by_levels(view: ClusterView, part: Array) -> Array:
    """The lower levels of hierarchical Algorithm 1: fractions of each GPU, (B, N, K), O(N K).

    From cluster to nodes to GPUs an agent's work λ R / P goes by its parts, (B, N, K), in proportion to the
    speeds of the GPUs on which it stands; on each GPU Algorithm 1 of arXiv 2512.22149 divides it among the
    agents that stand there.
    """
    agents, fractions = view.agents, np.empty(part.shape)
    work, least = agents.rate * agents.min_share / agents.priority, np.ascontiguousarray(agents.min_share)
    _algorithm_1_by_levels(work, least, part, np.empty((2, part.shape[2])), fractions)
    return fractions
