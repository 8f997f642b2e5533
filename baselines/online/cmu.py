"""The cµ rule by need."""

import numpy as np

from baselines.online.rows import decide
from baselines.online.water_filling import spread
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import largest_share, share_to_empty
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def hand_out(index: AnyArray, need: AnyArray, capacity: float, shares: AnyArray) -> None:
    """Write the shares, (N,) [GPU], that meet the needs, (N,) [GPU], in falling order of `index`, (N,).

    Agents with equal indices are served together, in proportion to their needs. O(N²).
    """
    count, left, bound = index.shape[0], capacity, np.inf
    for i in range(count):
        shares[i] = 0.0
    while left > 0.0:
        first, wanted = -1.0, 0.0
        for i in range(count):
            if need[i] > 0.0 and index[i] < bound and index[i] >= first:
                wanted = need[i] if index[i] > first else wanted + need[i]
                first = index[i]
        if wanted == 0.0:
            break
        part = min(1.0, left / wanted)
        for i in range(count):
            if index[i] == first:
                shares[i] = part * need[i]
        left -= part * wanted
        bound = first


@compiled
def serve_in_order(packed: Packed, index: AnyArray, need: AnyArray, granted: AnyArray) -> None:
    """Write the shares, (B, N) [GPU], that empty the queues in falling order of `index`, (B, N).

    What is left is shared equally. `need` is workspace, (N,). O(N²) for each row.
    """
    platform = packed.settings[0]
    for b in range(index.shape[0]):
        for i in range(index.shape[1]):
            need[i] = share_to_empty(packed.state[b, i], packed.agents[b, i], platform)
        hand_out(index[b], need, platform.gpus, granted[b])
        spread(granted[b], platform.gpus, largest_share(platform))


def in_order(index: Array, view: View) -> Array:
    """Serve the agents in falling order of `index`, shaped as `view.queue`, each by its need.

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    return decide(serve_in_order, view, np.atleast_2d(index), np.empty(index.shape[-1]))


def cmu(view: View) -> Array:
    """Serve in order of ω_i µ_i, each agent with the share that empties its queue in this step.

    The cµ rule of Cox and Smith, Queues (1961), with c = ω = 1/P the cost of waiting and µ = T. The
    need is the inverse of the throughput curve at q / (dt − delay); what is left of the
    platform is shared equally. On linear GPUs without frictions no decision leaves less
    weighted work, Σ ω q, at the end of the step: the work that it serves is a fractional
    knapsack. O(N²).

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    return in_order(view.throughput / view.priority, view)
