"""What a request log looks like: statistics of its times, and times that a clock has rounded."""

from typing import NamedTuple

import numpy as np

from gpualloc_env.state import AnyArray, Array

WINDOWS_S = (1.0, 10.0, 60.0)
PEAK_WINDOW_S = 60.0
CLOCK_S = 1e-6  # finest resolution at which time stamps are told apart


class Statistics(NamedTuple):
    """How often and how unevenly requests come; NaN where there are too few to say."""

    rate_rps: float
    gap_cv: float  # standard deviation over mean of the gaps; 1 for Poisson
    dispersion_1s: float  # variance over mean of the counts in windows of 1 s; 1 for Poisson
    dispersion_10s: float
    dispersion_60s: float
    peak_over_mean: float  # the highest count of 60 s over the mean one


def statistics(times: Array, span_s: float) -> Statistics:
    """Statistics of sorted request times, (n,) [s], in a log that lasts from 0 to `span_s`."""
    gaps = np.diff(times)
    cv = float(gaps.std() / gaps.mean()) if len(gaps) > 1 and gaps.any() else np.nan
    peak = counts(times, span_s, PEAK_WINDOW_S)
    return Statistics(
        len(times) / span_s,
        cv,
        *(dispersion(counts(times, span_s, window)) for window in WINDOWS_S),
        float(peak.max() / peak.mean()) if peak.any() else np.nan,
    )


def counts(times: Array, span_s: float, window_s: float) -> Array:
    """Requests in each whole window of the log, (span_s / window_s,)."""
    windows = int(span_s / window_s)
    position = (times / window_s).astype(np.int64)
    return np.bincount(position[position < windows], minlength=windows).astype(np.float64)


def dispersion(count: Array) -> float:
    """Index of dispersion of counts: their variance over their mean."""
    return float(count.var(ddof=1) / count.mean()) if len(count) > 1 and count.any() else np.nan


def quantum(times: Array) -> float:
    """Resolution of the clock [s]: the greatest common divisor of the differences of the stamps."""
    ticks = np.unique(np.round(np.diff(times) / CLOCK_S).astype(np.int64))
    return float(np.gcd.reduce(ticks) * CLOCK_S)


def spread(times: Array, stream: AnyArray, quantum_s: float) -> Array:
    """Times at which the requests of one stamp are spread evenly over the time it stands for.

    The requests of each stream are spread evenly too, so that an order of the streams within a
    stamp leaves no trace.

    Args:
        times: sorted stamps, multiples of the quantum, (n,) [s].
        stream: which stream each request belongs to, (n,).
        quantum_s: time that one stamp stands for.

    Returns:
        Times in the order of the requests, (n,) [s]; sorted within each stream.
    """
    tick = np.round(times / quantum_s).astype(np.int64)
    position, count = _places(np.stack([tick, stream.astype(np.int64)]))
    order = np.lexsort((stream, (position + 0.5) / count, tick))
    rank, total = _places(tick[order][None])
    result = np.empty(len(times))
    result[order] = (tick[order] + (rank + 0.5) / total) * quantum_s
    return result


def _places(keys: AnyArray) -> tuple[AnyArray, AnyArray]:
    """For each column of keys, how many equal ones stand before it, and how many there are, (n,)."""
    order = np.lexsort(keys)
    ordered = keys[:, order]
    first = np.concatenate([[True], (np.diff(ordered) != 0).any(axis=0)])
    group = np.cumsum(first) - 1
    sizes = np.bincount(group)
    position, count = np.empty((2, len(order)), dtype=np.int64)
    position[order] = np.arange(len(order)) - np.flatnonzero(first)[group]
    count[order] = sizes[group]
    return position, count
