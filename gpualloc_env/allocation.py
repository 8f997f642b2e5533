"""From the fractions that a policy asks for to the GPU shares that the platform grants.

Fractions are clipped to [0, 1] and, where they sum to more than 1, scaled to sum to 1. An agent
gets min(u G, max_share), rounded down to whole slices where the platform has them.
"""

import numpy as np

from gpualloc_env.compiled import inlined
from gpualloc_env.state import AnyArray

# Actions are float32: a request within their resolution of a whole slice is that slice.
SLICE_TOLERANCE = 1e-6


@inlined
def clip(fraction: float) -> float:
    """The fraction within [0, 1]."""
    return 0.0 if fraction < 0.0 else (1.0 if fraction > 1.0 else fraction)


@inlined
def scale(total: float) -> float:
    """The factor at which clipped fractions of a sum fit the platform."""
    return 1.0 / total if total > 1.0 else 1.0


@inlined
def grant(fraction: float, gpus: float, max_share: float, slice_: float) -> float:
    """The share [GPU] that a scaled fraction of G GPUs is granted."""
    share = fraction * gpus
    share = max_share if share > max_share else share
    if slice_ > 0.0:
        slices = share / slice_
        # Never near a whole slice, however many they are: rounding must not exceed the capacity.
        share = np.floor(slices + SLICE_TOLERANCE * min(slices, 1000.0)) * slice_
    return share


@inlined
def fit(shares: AnyArray, capacity: float) -> None:
    """Scale shares, (N,) [GPU], to the capacity where they exceed it."""
    total = 0.0
    for i in range(shares.shape[0]):
        total += shares[i]
    if total > capacity:
        for i in range(shares.shape[0]):
            shares[i] *= capacity / total
