"""Metrics of a finished episode, exact for the fluid model, from its recorded curves.

Requests of an agent leave in the order in which they came. In a step that serves at rate μ,
the requests of one earlier step leave over an interval of time, so their sojourn times are
spread evenly over an interval: an episode is a list of such (shortest, longest, requests)
segments. What has not left by the end is a segment of its age.
"""

from typing import TYPE_CHECKING

import numpy as np

from gpualloc_env.compiled import compiled
from gpualloc_env.simulator import NEGLIGIBLE
from gpualloc_env.state import (
    BACKLOG,
    CAPACITY,
    COLD_START,
    DELAY,
    LATE,
    QUEUE_END,
    REALLOCATED,
    REWARD,
    SERVED,
    SHARE,
    SHORTFALL,
    SLO_S,
    SUMS,
    THROUGHPUT,
    AnyArray,
    Array,
)

if TYPE_CHECKING:
    from gpualloc_env.batch import Batch

PERCENTILES = (0.50, 0.95, 0.99)
PAPER_MAXIMUM_LATENCY_S = 999.0


@compiled
def sojourns(
    arrived: AnyArray, served: AnyArray, capacity: AnyArray, delay: AnyArray, dt: float, segments: AnyArray
) -> int:
    """Write the sojourn segments of one agent, rows (shortest [s], longest [s], requests).

    Args:
        arrived: cumulative arrivals up to each step, (T,) [requests].
        served: requests served in each step, (T,).
        capacity: requests that could have been served in each step, (T,).
        delay: time from the start of each step to the start of service, (T,) [s].
        dt: length of a step [s].
        segments: room for 2 T + 1 rows of 3 numbers.

    Returns:
        The number of segments.
    """
    steps = arrived.shape[0]
    count = 0
    cohort = 0
    departed = 0.0
    for t in range(steps):
        if served[t] <= 0.0:
            continue
        start = departed
        rate = capacity[t] / (dt - delay[t])
        left = served[t]
        while left > NEGLIGIBLE and cohort <= t:
            waiting = arrived[cohort] - departed
            leaving = min(waiting, left)
            if leaving > 0.0:
                age = (t - cohort) * dt + delay[t]
                segments[count, 0] = age + (departed - start) / rate
                segments[count, 1] = age + (departed - start + leaving) / rate
                segments[count, 2] = leaving
                count += 1
                departed += leaving
                left -= leaving
            if waiting - leaving <= NEGLIGIBLE:
                cohort += 1
    while cohort < steps:
        waiting = arrived[cohort] - departed
        if waiting > NEGLIGIBLE:
            segments[count, 0] = segments[count, 1] = (steps - cohort) * dt
            segments[count, 2] = waiting
            count += 1
            departed += waiting
        cohort += 1
    return count


@compiled
def sojourn_quantile(segments: AnyArray, probability: float, candidates: AnyArray) -> float:
    """The time within which a fraction of the requests of some segments left [s].

    Halves an interval that holds the answer, each time dropping the segments that lie wholly
    on one side of it. NaN without requests. `candidates` is room for the indices of the rest.
    """
    count = segments.shape[0]
    if count == 0:
        return np.nan
    low, high, target = segments[0, 0], segments[0, 1], 0.0
    for index in range(count):
        candidates[index] = index
        low = min(low, segments[index, 0])
        high = max(high, segments[index, 1])
        target += probability * segments[index, 2]
    below = 0.0  # requests in the segments dropped because they lie below `low`
    while high - low > 1e-10 * (1.0 + high):
        middle = 0.5 * (low + high)
        total = below
        for position in range(count):
            index = candidates[position]
            first, last, requests = segments[index, 0], segments[index, 1], segments[index, 2]
            if last <= middle:
                total += requests
            elif first < middle:
                total += requests * (middle - first) / (last - first)
        if total >= target:
            high = middle
        else:
            low = middle
        kept = 0
        for position in range(count):
            index = candidates[position]
            if segments[index, 1] <= low:
                below += segments[index, 2]
            elif segments[index, 0] < high or segments[index, 0] == segments[index, 1] == high:
                candidates[kept] = index
                kept += 1
        count = kept
    return high


@compiled
def within(segments: AnyArray, limit: float) -> float:
    """Requests of some segments that took at most `limit` seconds."""
    total = 0.0
    for index in range(segments.shape[0]):
        first, last, requests = segments[index, 0], segments[index, 1], segments[index, 2]
        if last <= limit:
            total += requests
        elif first < limit:
            total += requests * (limit - first) / (last - first)
    return total


def _ratio(numerator: float, denominator: float) -> float:
    """NaN where nothing happened, so that an average over episodes can leave it out."""
    return float(numerator / denominator) if denominator > 0 else float("nan")


def _latencies(segments: Array) -> dict[str, float]:
    candidates = np.empty(len(segments), dtype=np.int64)
    names = (f"latency_p{100 * probability:.0f}_s" for probability in PERCENTILES)
    return {
        name: float(sojourn_quantile(segments, probability, candidates))
        for name, probability in zip(names, PERCENTILES, strict=True)
    }


def _agent_metrics(batch: "Batch", b: int, i: int) -> tuple[dict[str, float], Array]:
    """Metrics of one agent in one environment, and its sojourn segments."""
    history = batch.history[b, :, :, i].T.copy()
    steps, dt = history.shape[1], batch.scenario.dt
    span = steps * dt
    arrived = batch.arrived[:steps, b, i].copy()
    room = np.empty((2 * steps + 1, 3))
    count = sojourns(arrived, history[SERVED], history[CAPACITY], history[DELAY], dt, room)
    segments = room[:count]
    unfinished = float(history[QUEUE_END, -1])
    on_time = within(segments, float(batch.agents[b, SLO_S, i]))
    # Waiting requests that are still within their objective have not been served.
    waiting = segments[segments[:, 0] == segments[:, 1]]
    waiting_on_time = within(waiting, float(batch.agents[b, SLO_S, i]))
    nominal = batch.agents[b, THROUGHPUT, i] * history[SHARE]
    paper_latency = np.full(steps, PAPER_MAXIMUM_LATENCY_S)
    np.divide(history[QUEUE_END], nominal, out=paper_latency, where=nominal > 0)
    metrics = {
        "latency_mean_s": _ratio(history[BACKLOG].sum() * dt, arrived[-1]),
        **_latencies(segments),
        "slo_attainment": 1 - _ratio(history[LATE].sum(), arrived[-1]),
        "throughput_rps": float(history[SERVED].sum() / span),
        "goodput_rps": (on_time - waiting_on_time) / span,
        "backlog_end": unfinished,
        "unfinished": unfinished,
        "arrived": float(arrived[-1]),
        "share_mean": float(history[SHARE].mean()),
        "paper_latency_s": float(paper_latency.mean()),
    }
    return metrics, segments


def episode_metrics(batch: "Batch", b: int) -> dict[str, object]:
    """Metrics of the finished episode of environment `b`: in all, and `per_agent` by name.

    Latencies are sojourn times [s] over all requests, those that have not left counted with
    their age. A metric of requests is NaN where none came. `gpu_utilisation` is the work done
    in GPU-seconds of a whole GPU, Σ s/T, by the GPU-seconds held: it can pass 1 where
    throughput is concave, because part of a GPU then does more than its part of the work.
    `fairness_jain` is Jain's index (Σx)²/(N Σx²) of the fractions x of each agent's requests
    that were served.

    Raises:
        ValueError: the batch does not record its episodes, or this one is not over.
    """
    if batch.history.shape[1] == 0:
        raise ValueError("episode metrics need the whole episode: make the batch with record=True")
    if not batch.done[b]:
        raise ValueError(
            f"environment {b} is at step {batch.clock[b]} of its episode; metrics need all of it"
        )
    history = batch.history[b].swapaxes(0, 1)
    steps = history.shape[1]
    dt = batch.scenario.dt
    agents = [_agent_metrics(batch, b, i) for i in range(batch.num_agents)]
    per_agent = {name: metrics for name, (metrics, _) in zip(batch.scenario.agent_names, agents, strict=True)}
    served = history[SERVED].sum(axis=0)
    arrived = batch.arrived[steps - 1, b]
    throughput = batch.agents[b, THROUGHPUT]
    gpu_seconds = float(history[SHARE].sum() * dt)
    cost = gpu_seconds * batch.scenario.platform.usd_per_gpu_hour / 3600
    fractions = served[arrived > 0] / arrived[arrived > 0]
    paper_latencies = np.array([metrics["paper_latency_s"] for metrics, _ in agents])

    def total(name: str) -> float:
        return float(sum(metrics[name] for metrics, _ in agents))

    return {
        "objective": float(-batch.episode[b, SUMS + REWARD] / steps),
        "latency_mean_s": _ratio(history[BACKLOG].sum() * dt, arrived.sum()),
        **_latencies(np.concatenate([segments for _, segments in agents])),
        "slo_attainment": 1 - _ratio(history[LATE].sum(), arrived.sum()),
        "throughput_rps": total("throughput_rps"),
        "goodput_rps": total("goodput_rps"),
        "backlog_end": total("backlog_end"),
        "unfinished": total("unfinished"),
        "arrived": total("arrived"),
        "gpu_utilisation": _ratio((served / throughput).sum(), gpu_seconds),
        "gpu_seconds": gpu_seconds,
        "cost_usd": cost,
        "cost_usd_per_1k": 1000 * _ratio(cost, served.sum()),
        "fairness_jain": _ratio(fractions.sum() ** 2, len(fractions) * (fractions**2).sum()),
        "min_share_shortfall": float(batch.episode[b, SUMS + SHORTFALL] / steps),
        "reallocations": float(history[REALLOCATED].sum()),
        "cold_starts": float(history[COLD_START].sum()),
        "paper_latency_s": float(paper_latencies.mean()),
        "paper_throughput_rps": float((throughput * history[SHARE]).sum() / steps),
        "paper_latency_std_s": float(paper_latencies.std()),
        "per_agent": per_agent,
    }
