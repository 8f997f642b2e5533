"""Exact likelihood of request times under a two-state burst process, and its maximum.

A Markov-modulated Poisson process (MMPP): while off, requests come at the rate λ₀, while on at
λ₁ = ratio · λ₀; the times off and on are exponential. Source: Fischer and Meier-Hellstern, "The
Markov-modulated Poisson process (MMPP) cookbook", Performance Evaluation 18, 1993. The forward
recursion is that of Rydén, "An EM algorithm for estimation in Markov-modulated Poisson
processes", Computational Statistics and Data Analysis 21, 1996.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, exp, log, sqrt
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from gpualloc_env.compiled import compiled
from gpualloc_env.scenario.traffic import Burst
from gpualloc_env.simulation.state import Array

HIGHEST_RATIO = 1e4  # above it, hardly a request comes while off
START_RATIOS = (2.0, 5.0, 20.0)
START_TIMES = 6  # mean times on and off that are tried, spread evenly over the orders of magnitude
STARTS = 3  # of these, how many of the likeliest are followed to their maximum
REQUESTS_FOR_A_START = 100_000
PARAMETERS = 3


class Stream(NamedTuple):
    """Requests that one process of rate `rate_rps` · factor(t) made, as the likelihood reads them."""

    rate_rps: float  # mean rate at factor 1
    gaps: Array  # (n + 1,) [s] the first from the start of the log, the last to its end
    mean_factor: Array  # (n + 1,) mean of the factor over each gap
    factor: Array  # (n,) factor at each request


@dataclass(frozen=True, slots=True)
class BurstFit:
    """The likeliest burst process."""

    burst: Burst
    log_likelihood: float


@compiled
def mmpp_log_likelihood(
    gaps: Array,
    mean_factor: Array,
    factor: Array,
    off_rate: float,
    on_rate: float,
    off_s: float,
    on_s: float,
) -> float:
    """Log density of the gaps [s⁻¹ each] of one stream, started in the stationary state.

    Over a gap x the two states evolve by exp(Mx), M = Q − Λ. With h and d the half trace and the
    half difference of M's eigenvalues,

        exp(Mx) = e^{(h+d)x} · [(1 + e^{−2dx})/2 · I + (1 − e^{−2dx})/(2d) · (M − hI)],

    in which only the first factor, taken as a logarithm, can leave the range of a float: gaps
    of zero and of many hours are exact alike.
    """
    leave_off, leave_on = 1.0 / off_s, 1.0 / on_s
    off = off_s / (off_s + on_s)
    on = 1.0 - off
    total = 0.0
    last_factor = np.nan
    tilt = distance = exponent = 0.0
    for k in range(gaps.shape[0]):
        if mean_factor[k] != last_factor:
            last_factor = mean_factor[k]
            mean_off, mean_on = off_rate * last_factor, on_rate * last_factor
            tilt = 0.5 * (leave_on + mean_on - leave_off - mean_off)
            distance = sqrt(tilt * tilt + leave_off * leave_on)
            exponent = distance - 0.5 * (leave_off + mean_off + leave_on + mean_on)
        decay = exp(-2.0 * distance * gaps[k])
        even = 0.5 * (1.0 + decay)
        odd = 0.5 * (1.0 - decay) / distance
        was_off = off
        off = was_off * (even + odd * tilt) + on * odd * leave_on
        on = was_off * odd * leave_off + on * (even - odd * tilt)
        total += exponent * gaps[k]
        if k < factor.shape[0]:
            off *= off_rate * factor[k]
            on *= on_rate * factor[k]
        # One logarithm and two divisions for many requests.
        norm = off + on
        if norm < 1e-100 or norm > 1e100:
            total += log(norm)
            off /= norm
            on /= norm
    return total + log(off + on)


def burst_log_likelihood(streams: Sequence[Stream], burst: Burst) -> float:
    """Log-likelihood of streams that each follow a burst process of their own."""
    total = 0.0
    for stream in streams:
        off_rate = stream.rate_rps * burst.off_factor
        total += mmpp_log_likelihood(
            stream.gaps,
            stream.mean_factor,
            stream.factor,
            off_rate,
            burst.ratio * off_rate,
            burst.off_s,
            burst.on_s,
        )
    return total


def poisson_log_likelihood(streams: Sequence[Stream]) -> float:
    """Log-likelihood of the streams without bursts."""
    total = 0.0
    for stream in streams:
        total += len(stream.factor) * log(stream.rate_rps) + float(np.log(stream.factor).sum())
        total -= stream.rate_rps * float(stream.gaps @ stream.mean_factor)
    return total


def fit_burst(streams: Sequence[Stream], shortest_s: float, longest_s: float) -> BurstFit:
    """The burst process, shared by all streams, of the highest likelihood.

    The likelihood has several maxima where a log bursts on several time scales, so the search
    starts from the best of a grid over the time scales of the log. It begins on the first part of
    a long log, and ends on all of it.

    Args:
        streams: the requests; each follows a process of its own with the same parameters.
        shortest_s: least mean time on or off.
        longest_s: greatest mean time on or off.
    """
    limits = (log(shortest_s), log(longest_s))

    def climb(streams: Sequence[Stream], start: Array, step: float, accuracy: float) -> Array:
        result = minimize(
            _cost,
            start,
            args=(streams,),
            method="Nelder-Mead",
            bounds=((0.0, log(HIGHEST_RATIO)), limits, limits),
            options={
                "xatol": 1e-2 * accuracy,
                "fatol": accuracy,
                "initial_simplex": start + step * np.eye(PARAMETERS + 1, PARAMETERS, k=-1),
            },
        )
        return result.x

    heads = _heads(streams, REQUESTS_FOR_A_START)
    times = np.geomspace(shortest_s, longest_s, START_TIMES + 2)[1:-1]
    grid = [np.log(start) for start in product(START_RATIOS, times, times)]
    starts = sorted(grid, key=lambda start: _cost(start, heads))[:STARTS]
    summits = [climb(heads, start, step=0.7, accuracy=1.0) for start in starts]
    start = min(summits, key=lambda summit: _cost(summit, streams))
    best = climb(streams, start, step=0.1, accuracy=1e-2)
    return BurstFit(_burst(best), -_cost(best, streams))


def _cost(parameters: Array, streams: Sequence[Stream]) -> float:
    return -burst_log_likelihood(streams, _burst(parameters))


def _heads(streams: Sequence[Stream], requests: int) -> list[Stream]:
    """The first part of each stream, so many requests in all."""
    part = min(1.0, requests / sum(len(stream.factor) for stream in streams))
    lengths = [ceil(part * len(stream.factor)) for stream in streams]
    return [
        Stream(stream.rate_rps, stream.gaps[: n + 1], stream.mean_factor[: n + 1], stream.factor[:n])
        for stream, n in zip(streams, lengths, strict=True)
    ]


def _burst(parameters: Array) -> Burst:
    ratio, on_s, off_s = np.exp(parameters).tolist()
    return Burst(ratio=max(1.0, ratio), on_s=on_s, off_s=off_s)
