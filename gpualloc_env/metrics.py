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
    ARRIVALS,
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

PERCENTILES = {"latency_p50_s": 0.50, "latency_p95_s": 0.95, "latency_p99_s": 0.99}
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
def served_within(segments: AnyArray, limit: float) -> float:
    """Requests of some segments that left within `limit` seconds."""
    total = 0.0
    for index in range(segments.shape[0]):
        first, last, requests = segments[index, 0], segments[index, 1], segments[index, 2]
        # A segment without extent is still waiting.
        if first < last:
            total += requests * max(0.0, min(1.0, (limit - first) / (last - first)))
    return total


def _ratio(numerator: float, denominator: float) -> float:
    """NaN where nothing happened, so that an average over episodes can leave it out."""
    return float(numerator / denominator) if denominator > 0 else float("nan")


def _latencies(segments: Array) -> dict[str, float]:
    room = np.empty(len(segments), dtype=np.int64)
    return {name: sojourn_quantile(segments, probability, room) for name, probability in PERCENTILES.items()}


def _agent_segments(batch: "Batch", b: int) -> list[Array]:
    """Sojourn segments of each agent in one environment."""
    history = batch.history[b]
    steps = history.shape[0]
    room = np.empty((batch.num_agents, 2 * steps + 1, 3))
    segments: list[Array] = []
    for i in range(batch.num_agents):
        curves = history[:, SERVED, i], history[:, CAPACITY, i], history[:, DELAY, i]
        count = sojourns(batch.arrived[:steps, b, i], *curves, batch.scenario.dt, room[i])
        segments.append(room[i, :count])
    return segments


def _paper_latencies(batch: "Batch", b: int) -> Array:
    """The paper's estimator q/(T g) after service, 999 s where g = 0, each agent's mean, (N,) [s]."""
    history = batch.history[b]
    nominal = batch.agents[b, :, THROUGHPUT] * history[:, SHARE]
    latencies = np.full(nominal.shape, PAPER_MAXIMUM_LATENCY_S)
    return np.divide(history[:, QUEUE_END], nominal, out=latencies, where=nominal > 0).mean(axis=0)


def _in_transit(batch: "Batch", b: int) -> float:
    """∫ finished work on its way to its next agent, which it reaches at the next step [requests · s]."""
    routing, dt = batch.routing, batch.scenario.dt
    if routing.size == 0:
        return 0.0
    history = batch.history[b]
    served, capacity, delay = history[:, SERVED], history[:, CAPACITY], history[:, DELAY]
    serving = np.divide(served * (dt - delay), capacity, out=np.zeros_like(served), where=served > 0)
    return float((served * (dt - delay - 0.5 * serving)).sum(axis=0) @ routing.sum(axis=1))


def _by_agent(batch: "Batch", b: int, sums: Array, segments: list[Array]) -> dict[str, dict[str, float]]:
    """Metrics of each agent by its name; `sums`, (OUTCOME_COLUMNS, N), are over the episode's steps."""
    steps, dt = batch.scenario.steps, batch.scenario.dt
    span = steps * dt
    # Python's own floats: a few numbers at a time are slow as NumPy scalars.
    columns = sums.T.tolist()
    arrived = batch.arrived[steps - 1, b].tolist()
    unfinished = batch.history[b, -1, QUEUE_END].tolist()
    paper_latencies = _paper_latencies(batch, b).tolist()
    limits = batch.agents[b, :, SLO_S].tolist()
    metrics: dict[str, dict[str, float]] = {}
    for i, name in enumerate(batch.scenario.agent_names):
        total = columns[i]
        metrics[name] = {
            "latency_mean_s": _ratio(total[BACKLOG] * dt, arrived[i]),
            **_latencies(segments[i]),
            "slo_attainment": 1 - _ratio(total[LATE], arrived[i]),
            "throughput_rps": total[SERVED] / span,
            "goodput_rps": served_within(segments[i], limits[i]) / span,
            "backlog_end": unfinished[i],
            "unfinished": unfinished[i],
            "arrived": arrived[i],
            "share_mean": total[SHARE] / steps,
            "paper_latency_s": paper_latencies[i],
        }
    return metrics


def objectives(batch: "Batch") -> Array:
    """J of each episode, (B,): the mean of −reward over the steps taken."""
    return -batch.episode[:, SUMS + REWARD] / np.maximum(batch.clock, 1)


def episode_metrics(batch: "Batch", b: int) -> dict[str, object]:
    """Metrics of the finished episode of environment `b`: in all, and `per_agent` by name.

    Latencies are sojourn times [s] over all requests, those that have not left counted with
    their age. `task_latency_mean_s` is the time from a task's arrival from outside to its end,
    by Little's law over all that it visits and the way between: Σ (backlog + in transit) · dt
    by the external arrivals. A metric of requests is NaN where none came. `gpu_utilisation` is the work done
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
    steps, dt = batch.scenario.steps, batch.scenario.dt
    sums = batch.history[b].sum(axis=0)
    segments = _agent_segments(batch, b)
    per_agent = _by_agent(batch, b, sums, segments)
    served, arrived = sums[SERVED], batch.arrived[steps - 1, b]
    throughput = batch.agents[b, :, THROUGHPUT]
    gpu_seconds = float(sums[SHARE].sum() * dt)
    cost = gpu_seconds * batch.scenario.platform.usd_per_gpu_hour / 3600
    fractions = served[arrived > 0] / arrived[arrived > 0]
    paper_latencies = np.array([metrics["paper_latency_s"] for metrics in per_agent.values()])

    def total(name: str) -> float:
        return sum(metrics[name] for metrics in per_agent.values())

    return {
        "objective": float(objectives(batch)[b]),
        "latency_mean_s": _ratio(sums[BACKLOG].sum() * dt, arrived.sum()),
        **_latencies(np.concatenate(segments)),
        "task_latency_mean_s": _ratio(sums[BACKLOG].sum() * dt + _in_transit(batch, b), sums[ARRIVALS].sum()),
        "slo_attainment": 1 - _ratio(sums[LATE].sum(), arrived.sum()),
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
        "reallocations": float(sums[REALLOCATED].sum()),
        "cold_starts": float(sums[COLD_START].sum()),
        "paper_latency_s": float(paper_latencies.mean()),
        "paper_throughput_rps": float((throughput * sums[SHARE]).sum() / steps),
        "paper_latency_std_s": float(paper_latencies.std()),
        "per_agent": per_agent,
    }
