"""Algorithm 1 of arXiv 2512.22149: the baseline, and what a learned allocator falls back on."""

import numpy as np

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.observation import OBSERVATION_FEATURES, unbounded
from gpualloc_env.simulation.state import AnyArray, Array


@inlined
def _total(values: AnyArray) -> float:
    """Sum of (N,) numbers in a fixed order: eight running sums, so that they do not wait for each other."""
    a = b = c = d = e = f = g = h = 0.0
    whole = values.shape[0] - values.shape[0] % 8
    for i in range(0, whole, 8):
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
        e += values[i + 4]
        f += values[i + 5]
        g += values[i + 6]
        h += values[i + 7]
    for i in range(whole, values.shape[0]):
        a += values[i]
    return ((a + b) + (c + d)) + ((e + f) + (g + h))


@compiled
def _algorithm_1(
    demand_rate: AnyArray, min_share: AnyArray, priority: AnyArray, gpus: float, fractions: AnyArray
) -> None:
    """Write Algorithm 1's fractions of the platform, (B, N)."""
    per_gpu = 1.0 / gpus
    for b in range(fractions.shape[0]):
        row = fractions[b]
        for i in range(row.shape[0]):
            row[i] = demand_rate[b, i] * min_share[b, i] / priority[b, i]
        total = _total(row)
        if total <= 0.0:
            continue
        per_demand = 1.0 / total
        for i in range(row.shape[0]):
            row[i] = max(min_share[b, i] * per_gpu, row[i] * per_demand)
        allocated = _total(row)
        if allocated > 1.0:
            scale = 1.0 / allocated
            for i in range(row.shape[0]):
                row[i] *= scale


def algorithm_1(demand_rate: Array, min_share: Array, priority: Array, gpus: float) -> Array:
    """Algorithm 1 of arXiv 2512.22149, O(N).

    Demands d_i = λ_i R_i / P_i, D = Σ d_i. Where D = 0 nobody gets anything. Otherwise
    g_i = max(R_i, d_i/D · G), and where Σ g > G every share is scaled by G/Σ g, which takes
    agents below the minimum that was guaranteed to them whenever Σ R comes close to G.

    Args:
        demand_rate: λ, (N,) or (B, N) [requests/s]; a factor common to all agents changes nothing.
        min_share: R, same shape [GPU].
        priority: P, same shape.
        gpus: G [GPU].

    Returns:
        Fractions of the platform, g/G, same shape.
    """
    fractions = np.empty(demand_rate.shape)
    _algorithm_1(
        np.atleast_2d(demand_rate),
        np.atleast_2d(min_share),
        np.atleast_2d(priority),
        gpus,
        np.atleast_2d(fractions),
    )
    return fractions


_INFLOW, _THROUGHPUT, _MIN_SHARE, _WEIGHT, _GPUS = ALGORITHM_1_COLUMNS = tuple(
    OBSERVATION_FEATURES.index(name) for name in ("inflow", "throughput", "min_share", "priority", "gpus")
)
"""Columns of the observation from which Algorithm 1 can be computed."""


def algorithm_1_from_observation(observation: AnyArray) -> Array:
    """Algorithm 1 on the inflow that an observation shows: the columns' x / (1 + x) are undone.

    x = inflow / (T dt) times 0.02 T gives λ_i up to a factor that all agents share, which changes
    nothing. The result is Algorithm 1 on the view to within the resolution of float32.

    Args:
        observation: (B, N, F), its columns `ALGORITHM_1_COLUMNS` in [0, 1], priority and gpus above 0.

    Returns:
        Fractions of the platform, (B, N).
    """
    columns = np.asarray(observation, dtype=np.float64)
    rate = unbounded(columns[..., _INFLOW]) * unbounded(columns[..., _THROUGHPUT])
    per_platform = columns[..., _MIN_SHARE] / unbounded(columns[..., _GPUS])
    return algorithm_1(rate, per_platform, 1.0 / columns[..., _WEIGHT], 1.0)
