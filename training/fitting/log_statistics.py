"""What a request log looks like: statistics of its times, and times that a clock has rounded."""

from typing import NamedTuple

import numpy as np

from gpualloc_env.simulation.state import Array

WINDOWS_S = (1.0, 10.0, 60.0)  # the highest count is taken in windows of the last


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
    second, ten_seconds, minute = (counts(times, span_s, window) for window in WINDOWS_S)
    return Statistics(
        rate_rps=len(times) / span_s,
        gap_cv=cv,
        dispersion_1s=dispersion(second),
        dispersion_10s=dispersion(ten_seconds),
        dispersion_60s=dispersion(minute),
        peak_over_mean=float(minute.max() / minute.mean()) if minute.any() else np.nan,
    )


def counts(times: Array, span_s: float, window_s: float) -> Array:
    """Requests in each whole window of the log, (span_s / window_s,)."""
    windows = int(span_s / window_s)
    position = (times / window_s).astype(np.int64)
    return np.bincount(position[position < windows], minlength=windows).astype(np.float64)


def dispersion(count: Array) -> float:
    """Index of dispersion of counts: their variance over their mean."""
    return float(count.var(ddof=1) / count.mean()) if len(count) > 1 and count.any() else np.nan


def spread(times: Array, quantum_s: float, generator: np.random.Generator) -> Array:
    """Times drawn uniformly within the time that each one's stamp stands for, sorted, (n,) [s].

    Placed at equal distances instead, the requests of one stamp would look as if their rate never
    changed within it: that makes the fitted times on and off of bursts of 10 s too long by
    15 % where stamps are whole seconds, against 2 % for random places.
    """
    return np.sort(times + quantum_s * generator.random(len(times)))
