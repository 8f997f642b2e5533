"""From the fractions that a policy asks for to the GPU shares that the platform grants."""

from math import floor

from gpualloc_env.compiled import compiled
from gpualloc_env.state import AnyArray

# Actions are float32: a request within their resolution of a whole slice is that slice.
SLICE_TOLERANCE = 1e-6


@compiled
def allocate(requested: AnyArray, gpus: float, max_share: float, slice_: float, granted: AnyArray) -> None:
    """Grant shares, (N,) [GPU], for requested fractions of the platform, (N,).

    Fractions are clipped to [0, 1] and, where they sum to more than 1, scaled to sum to 1.
    An agent gets min(u G, max_share), rounded down to whole slices where the platform has them.
    """
    total = 0.0
    for i in range(requested.shape[0]):
        share = requested[i]
        granted[i] = 0.0 if share < 0.0 else (1.0 if share > 1.0 else share)
        total += granted[i]
    scale = 1.0 / total if total > 1.0 else 1.0
    for i in range(requested.shape[0]):
        share = granted[i] * scale * gpus
        share = max_share if share > max_share else share
        if slice_ > 0.0:
            slices = share / slice_
            # Never near a whole slice, however many they are: rounding must not exceed the capacity.
            share = floor(slices + SLICE_TOLERANCE * min(slices, 1000.0)) * slice_
        granted[i] = share


@compiled
def fit(shares: AnyArray, capacity: float) -> None:
    """Scale shares, (N,) [GPU], to the capacity where they exceed it."""
    total = 0.0
    for i in range(shares.shape[0]):
        total += shares[i]
    if total > capacity:
        for i in range(shares.shape[0]):
            shares[i] *= capacity / total
