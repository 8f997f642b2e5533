"""The clock of a request log: what one stamp stands for, and where its requests are placed within that.

One rule for every format, in a replay as in a fit: requests that share a stamp are spread over the
log's quantum, the time that nearly all of its stamps are multiples of.
"""

from typing import NamedTuple

import numpy as np

from gpualloc_env.simulation.state import AnyArray, Array

JITTER_S = 0.01  # stamps of a coarse clock miss the multiples of their quantum by some milliseconds
MOST = 0.99  # of the distinct stamps are multiples of the quantum
_CLOCK_S = 1e-6  # finest resolution at which stamps are told apart
_COMMON_GAPS, _PARTS, _SAMPLE = 16, 12, 20_000


class Clock(NamedTuple):
    """What is known of a log's clock."""

    quantum_s: float  # [s] time that one stamp stands for
    odd: AnyArray  # indices of the first requests of the stamps that are no multiples of it


def clock(stamp: Array) -> Clock:
    """The clock of sorted stamps, (n,) [s].

    The quantum is the longest time of which at least 99 % of the distinct stamps are multiples, to within
    10 ms; a part of one of the commonest gaps. Where there is none above 40 ms it is the greatest
    common divisor of the gaps, to the microsecond.
    """
    first = np.flatnonzero(np.diff(stamp, prepend=-np.inf))
    distinct: Array = stamp[first] - stamp[0]
    gaps = np.rint(np.diff(distinct) / JITTER_S).astype(np.int64)
    common, counts = np.unique(gaps[gaps > 0], return_counts=True)
    common = common[np.argsort(-counts, kind="stable")[:_COMMON_GAPS]] * JITTER_S
    candidates = np.unique(np.round(common[:, None] / np.arange(1, _PARTS + 1), 9))[::-1]
    sample = distinct[:: max(1, len(distinct) // _SAMPLE)]
    for quantum in candidates[candidates >= 4 * JITTER_S].tolist():
        if _off(sample, quantum).mean() <= 1 - MOST and (off := _off(distinct, quantum)).mean() <= 1 - MOST:
            return Clock(quantum, first[off])
    ticks = np.unique(np.rint(np.diff(distinct) / _CLOCK_S).astype(np.int64))
    return Clock(float(np.gcd.reduce(ticks) * _CLOCK_S), np.zeros(0, np.int64))


def _off(stamp: Array, quantum: float) -> AnyArray:
    """Which stamps are no multiples of a quantum, whatever its phase, (n,) bool."""
    turn = 2 * np.pi * stamp / quantum
    # The phase that the stamps have in common, which no single one of them decides.
    phase = np.arctan2(np.median(np.sin(turn)), np.median(np.cos(turn)))
    residue = np.remainder(turn - phase + np.pi, 2 * np.pi) - np.pi
    return np.abs(residue) * quantum / (2 * np.pi) > JITTER_S


def spread(stamp: Array, quantum_s: float) -> Array:
    """Spread the requests of each stamp, (n,) [s], evenly over the quantum of the stamps.

    No request moves beyond the next stamp.
    """
    first = np.flatnonzero(np.diff(stamp, prepend=-np.inf))
    requests = np.diff(first, append=len(stamp))
    width = np.minimum(np.append(np.diff(stamp[first]), quantum_s), quantum_s)
    rank = np.arange(len(stamp)) - np.repeat(first, requests)
    return stamp + rank / np.repeat(requests, requests) * np.repeat(width, requests)
