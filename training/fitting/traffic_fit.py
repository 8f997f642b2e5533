"""The traffic law that a log's request times make likeliest: rates, bursts and a cycle."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import log

import numpy as np

from gpualloc_env.scenario.traffic import Burst, Cycle, Traffic
from gpualloc_env.simulation.state import Array
from training.fitting import burst_likelihood, cycle_regression
from training.fitting.burst_likelihood import BurstFit, Stream, fit_burst, poisson_log_likelihood
from training.fitting.cycle_regression import Sinusoid, find_cycle

SHORTEST_BURST_S = 0.1  # requests that come in bunches shorter than this count as chance


@dataclass(frozen=True, slots=True)
class TrafficFit:
    """A fitted law and what was weighed to choose it."""

    traffic: Traffic
    bic: dict[str, float]
    """Bayesian information criterion of each law that was tried, the least being the best."""
    candidate: Sinusoid | None
    """The likeliest cycle, whether or not it was taken."""


@dataclass(frozen=True, slots=True)
class _Law:
    name: str
    bic: float
    burst: Burst | None = None
    cycle: Sinusoid | None = None


def fit_traffic(
    streams: Sequence[Array],
    span_s: float,
    shortest_s: float = SHORTEST_BURST_S,
    say: Callable[[str], None] = lambda _: None,
) -> TrafficFit:
    """Fit the law of a scenario's traffic to the requests of each of its agents.

    Rates are requests over time. The law is one of Poisson, bursts that each agent has for
    itself and bursts common to all, each with and without a cycle, and is chosen by BIC. A cycle is
    tried only if it also stands out from the counts' own dispersion, because real bursts are
    more varied than any two-state process and leave a likelihood that anything slow improves.

    Args:
        streams: sorted request times of each agent, (n_i,) [s]; some may be empty.
        span_s: how long the log lasts from 0 [s].
        shortest_s: least mean time on or off.
        say: told what is being done.
    """
    say("Looking for a cycle")
    merged = np.sort(np.concatenate(streams))
    candidate = find_cycle(merged, span_s)
    laws = _laws(streams, merged, span_s, shortest_s, None, say)
    if candidate is not None and candidate.stands_out:
        laws += _laws(streams, merged, span_s, shortest_s, candidate, say)
    best = min(laws, key=lambda law: law.bic)
    taken = best.cycle
    cycle = None
    length = span_s
    if taken is not None:
        cycle = Cycle(
            amplitude=_rounded(taken.amplitude),
            period_s=_rounded(taken.period_s),
            peak_s=_rounded(taken.peak_s),
        )
        length = float(taken.integral(np.array(span_s)))
    burst = best.burst and Burst(
        ratio=_rounded(best.burst.ratio),
        on_s=_rounded(best.burst.on_s),
        off_s=_rounded(best.burst.off_s),
        common=best.burst.common,
    )
    rates = tuple(_rounded(len(times) / length) for times in streams)
    traffic = Traffic(law="poisson", rates_rps=rates, burst=burst, cycle=cycle)
    return TrafficFit(traffic, {law.name: law.bic for law in laws}, candidate)


def _rounded(value: float) -> float:
    """Six digits, more than any log determines: what is tested is what is written."""
    return float(f"{value:.6g}")


def _laws(
    streams: Sequence[Array],
    merged: Array,
    span_s: float,
    shortest_s: float,
    cycle: Sinusoid | None,
    say: Callable[[str], None],
) -> list[_Law]:
    """Poisson and both kinds of bursts, given the cycle."""
    suffix = " with a cycle" if cycle else ""
    penalty = log(len(merged))
    parameters = cycle_regression.PARAMETERS if cycle else 0
    separate = [_stream(times, span_s, cycle) for times in streams if len(times)]
    laws = [
        _Law("Poisson" + suffix, parameters * penalty - 2 * poisson_log_likelihood(separate), None, cycle)
    ]
    parameters += burst_likelihood.PARAMETERS

    def add(name: str, fit: BurstFit, marks: float, common: bool) -> None:
        bic = parameters * penalty - 2 * (fit.log_likelihood + marks)
        burst = fit.burst.model_copy(update={"common": common})
        laws.append(_Law(name + suffix, bic, burst, cycle))

    say(f"Fitting bursts{suffix} to {len(merged)} requests")
    together = _stream(merged, span_s, cycle)
    with ThreadPoolExecutor() as pool:
        each = pool.submit(fit_burst, separate, shortest_s, span_s)
        every = pool.submit(fit_burst, [together], shortest_s, span_s) if len(separate) > 1 else None
    add("independent bursts" if every else "bursts", each.result(), 0.0, common=False)
    if every:
        # Requests of a common process belong to an agent with the probability of its part of the rate.
        sizes = np.array([len(stream.factor) for stream in separate])
        marks = float(sizes @ np.log(sizes / sizes.sum()))
        add("common bursts", every.result(), marks, common=True)
    return laws


def _stream(times: Array, span_s: float, cycle: Sinusoid | None) -> Stream:
    """What the likelihood needs of one agent's requests."""
    edges = np.concatenate([[0.0], times, [span_s]])
    gaps = np.diff(edges)
    if cycle is None:
        return Stream(len(times) / span_s, gaps, np.ones(len(gaps)), np.ones(len(times)))
    integral = cycle.integral(edges)
    factor = cycle.factor(times)
    at_start = cycle.factor(edges[:-1])
    mean = np.divide(np.diff(integral), gaps, out=at_start, where=gaps > 1e-6)
    return Stream(len(times) / float(integral[-1]), gaps, mean, factor)
