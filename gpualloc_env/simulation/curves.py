"""Throughput curves and their inverses, and the share that an agent needs; all closed forms, O(1)."""

from math import ceil, inf
from typing import Any

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.state import AnyArray

FOOTHOLD = 0.01  # share that keeps a model on the GPU, or lets it load, while it serves nothing [GPU]


@compiled
def speedup(share: float, kappa: float) -> float:
    """f(g): throughput with `share` GPUs as a multiple of that of one whole GPU."""
    if kappa == 0.0:
        return share
    return share * (1.0 + kappa) / (share + kappa)


@compiled
def needed_share(multiple: float, kappa: float) -> float:
    """The inverse of f: the share at which throughput is `multiple` times that of one GPU.

    g = f for linear curves, g = f κ / (1 + κ − f) for saturating ones, infinite from f = 1 + κ on.
    """
    if kappa == 0.0:
        return multiple
    return multiple * kappa / (1.0 + kappa - multiple) if multiple < 1.0 + kappa else inf


@compiled
def whole_slices(share: float, slice_: float) -> float:
    """The least share of whole slices that is no smaller; the share itself where they are continuous."""
    if slice_ == 0.0 or share == inf:
        return share
    return ceil(share / slice_ - 1e-6) * slice_


@inlined
def largest_share(platform: Any) -> float:
    """The most that one agent can hold [GPU], from SETTINGS."""
    return min(platform.gpus, platform.max_share)


@compiled
def share_to_empty(now: Any, agent: Any, platform: Any) -> float:
    """The share [GPU] with which a queue is just empty at the end of the step; STATE, AGENT, SETTINGS.

    At most what one agent can hold. A change by more than the deadband costs its time first. While
    the model is loading for longer than the step a foothold is all that is of use.
    """
    if now.queue <= 0.0:
        return 0.0
    most, time = largest_share(platform), platform.dt - now.loading
    if time > 0.0:
        share = whole_slices(needed_share(now.queue / (agent.throughput * time), agent.kappa), platform.slice)
        if abs(min(share, most) - now.share) > platform.deadband:
            time -= platform.reallocation_s
    if time <= 0.0:
        return min(most, whole_slices(FOOTHOLD, platform.slice))
    share = needed_share(now.queue / (agent.throughput * time), agent.kappa)
    return min(most, whole_slices(share, platform.slice))


@inlined
def fit(shares: AnyArray, capacity: float) -> None:
    """Scale shares, (N,) [GPU], to the capacity where they exceed it."""
    total = 0.0
    for i in range(shares.shape[0]):
        total += shares[i]
    if total > capacity:
        for i in range(shares.shape[0]):
            shares[i] *= capacity / total
