"""Metrics of an episode, exact for the fluid model, from its recorded curves.

Requests of an agent leave in the order in which they came. In a step that serves at rate μ,
the requests of one earlier step leave over an interval of time, so their sojourn times are
spread evenly over an interval: an episode is a list of such (shortest, longest, requests)
segments. What has not left by the end is a segment of its age.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from gpualloc_env.call_metrics import TASK_METRICS, TOKEN_METRICS, measure
from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.shares import NEGLIGIBLE
from gpualloc_env.simulation.state import OUTCOME, AnyArray, Array, names_of, plain

if TYPE_CHECKING:
    from gpualloc_env.batch import Batch

LATENCIES = ("latency_p50_s", "latency_p95_s", "latency_p99_s")
PERCENTILES = (0.50, 0.95, 0.99)
PAPER_MAXIMUM_LATENCY_S = 999.0
Metrics = dict[str, float]
Sums = dict[str, list[float]]
BUILT_IN = (
    "objective",
    "latency_mean_s",
    *LATENCIES,
    "task_latency_mean_s",
    "slo_attainment",
    "throughput_rps",
    "goodput_rps",
    "backlog_end",
    "unfinished",
    "arrived",
    "gpu_utilisation",
    "gpu_seconds",
    "cost_usd",
    "cost_usd_per_1k",
    "fairness_jain",
    "min_share_shortfall",
    "reallocations",
    "cold_starts",
    "paper_latency_s",
    "paper_throughput_rps",
    "paper_latency_std_s",
)
"""Names of the metrics of an episode over all agents, in their order."""
OF_CALLS = tuple(name for name in (*TOKEN_METRICS, *TASK_METRICS) if name not in BUILT_IN)
"""Those that an episode has besides where agents serve calls."""

REGISTERED: "dict[str, Callable[[Batch, int], float]]" = {}
"""Metrics from outside this package, by name."""


def register(name: str, function: "Callable[[Batch, int], float]") -> None:
    """Add a metric to those of every episode, and so to the tables and files of every command.

    Args:
        name: with its unit, as `queue_maximum_requests`.
        function: called with a batch and the index b of an environment; `batch.recorded(b)`,
            (t, N) of OUTCOME, holds the steps of its episode. NaN where nothing was measured.

    Raises:
        TypeError: it is no function.
        ValueError: the name is taken.
    """
    if not callable(function):
        raise TypeError(f"metric {name!r} must be a function of a batch and an index, got {function!r}")
    if name in {*BUILT_IN, *OF_CALLS, *REGISTERED, "per_agent"}:
        raise ValueError(f"metric {name!r} is there already; give it another name")
    REGISTERED[name] = function


@compiled
def sojourns(arrived: AnyArray, history: AnyArray, dt: float, segments: AnyArray) -> int:
    """Write the sojourn segments of one agent, rows (shortest [s], longest [s], requests).

    Args:
        arrived: cumulative arrivals up to each step, (T,) [requests].
        history: the agent's recorded steps, (T,) of OUTCOME.
        dt: length of a step [s].
        segments: workspace for 2 T + 1 rows of 3 numbers.

    Returns:
        The number of segments.
    """
    steps = arrived.shape[0]
    count = 0
    cohort = 0
    departed = 0.0
    for t in range(steps):
        did = history[t]
        if did.served <= 0.0:
            continue
        start = departed
        rate = did.capacity / (dt - did.delay)
        left = did.served
        while left > NEGLIGIBLE and cohort <= t:
            waiting = arrived[cohort] - departed
            leaving = min(waiting, left)
            if leaving > 0.0:
                age = (t - cohort) * dt + did.delay
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


@inlined
def sojourn_quantile(segments: AnyArray, probability: float) -> float:
    """The least time within which a fraction of the requests of some segments left [s]; NaN without requests.

    The number that left within a time is a piecewise linear function of it: Newton's method
    finds the piece, and halving the bracket takes over where a step would leave it.
    """
    count = segments.shape[0]
    if count == 0:
        return np.nan
    low, high, target = segments[0, 0], segments[0, 1], 0.0
    for index in range(count):
        low = min(low, segments[index, 0])
        high = max(high, segments[index, 1])
        target += probability * segments[index, 2]
    time = 0.5 * (low + high)
    while high - low > 1e-10 * (1.0 + high):
        total = slope = 0.0
        for index in range(count):
            first, last, requests = segments[index, 0], segments[index, 1], segments[index, 2]
            if last <= time:
                total += requests
            elif first < time:
                density = requests / (last - first)
                total += density * (time - first)
                slope += density
        if total >= target * (1.0 - 1e-13):
            high = time
        else:
            low = time
        if slope > 0.0 and abs(total - target) <= 1e-13 * target:
            return time
        time += (target - total) / slope if slope > 0.0 else np.inf
        if not low < time < high:
            time = 0.5 * (low + high)
    return high


@inlined
def served_within(segments: AnyArray, limit: float) -> float:
    """Requests of some segments that left within `limit` seconds."""
    total = 0.0
    for index in range(segments.shape[0]):
        first, last, requests = segments[index, 0], segments[index, 1], segments[index, 2]
        # A segment without extent is still waiting.
        if first < last:
            total += requests * max(0.0, min(1.0, (limit - first) / (last - first)))
    return total


@compiled
def _paper_latency(history: AnyArray, throughput: float) -> float:
    """The paper's estimator for one agent, whose recorded steps are (T,) of OUTCOME."""
    estimate = 0.0
    for t in range(history.shape[0]):
        did = history[t]
        # A share of rounding alone is none.
        held = did.share > NEGLIGIBLE
        estimate += did.queue / (throughput * did.share) if held else PAPER_MAXIMUM_LATENCY_S
    return estimate / history.shape[0]


@compiled
def _measure(
    history: AnyArray,
    arrived: AnyArray,
    agents: AnyArray,
    dt: float,
    segments: AnyArray,
    quantiles: AnyArray,
    goodput: AnyArray,
    paper_latency: AnyArray,
) -> None:
    """What takes a loop over the steps of an episode.

    Args:
        history: the recorded steps, (T, N) of OUTCOME.
        arrived: cumulative arrivals, (T, N) [requests].
        agents: their parameters, (N,) of AGENT.
        dt: length of a step [s].
        segments: workspace for N (2 T + 1) rows of 3 numbers.
        quantiles: sojourn times [s] of each agent's requests and, in the last row, of all, (N + 1, 3).
        goodput: requests that left within their objective, (N,).
        paper_latency: the paper's estimator, mean of q/(T g) after service, 999 s without a share, (N,) [s].
    """
    total = 0
    for i in range(agents.shape[0]):
        own = segments[total:]
        own = own[: sojourns(arrived[:, i], history[:, i], dt, own)]
        total += own.shape[0]
        _quantiles(own, quantiles[i])
        goodput[i] = served_within(own, agents[i].slo)
        paper_latency[i] = _paper_latency(history[:, i], agents[i].throughput)
    _quantiles(segments[:total], quantiles[agents.shape[0]])


@inlined
def _quantiles(segments: AnyArray, quantiles: AnyArray) -> None:
    for k in range(len(PERCENTILES)):
        quantiles[k] = sojourn_quantile(segments, PERCENTILES[k])


def ratio(numerator: float, denominator: float) -> float:
    """NaN where nothing happened, so that an average over episodes can leave it out."""
    return numerator / denominator if denominator > 0 else math.nan


def _in_transit(batch: "Batch", b: int) -> float:
    """∫ finished work on its way to its next agent, which it reaches at the next step [requests · s]."""
    routing, dt = batch.world.routing, batch.scenario.dt
    if routing.size == 0:
        return 0.0
    history = batch.recorded(b)
    served, capacity, delay = history["served"], history["capacity"], history["delay"]
    serving = np.divide(served * (dt - delay), capacity, out=np.zeros_like(served), where=served > 0)
    return float((served * (dt - delay - 0.5 * serving)).sum(axis=0) @ routing.sum(axis=1))


def objectives(batch: "Batch") -> Array:
    """J of each episode, (B,): the mean of −reward over the steps taken; 0 before the first."""
    return batch.worth["objective"].copy()


def episode_metrics(batch: "Batch", b: int) -> dict[str, object]:
    """Metrics of the episode of environment `b`: in all, and `per_agent` by name.

    They are those of the steps taken so far: an episode can be cut short from outside.

    Latencies are sojourn times [s] over all requests, those that have not left counted with
    their age. `task_latency_mean_s` is the time from a task's arrival from outside to its end,
    by Little's law over all that it visits and the way between: Σ (backlog + in transit) · dt
    by the external arrivals. A metric of requests is NaN where none came. `gpu_utilisation` is
    the work done in GPU-seconds of a whole GPU, Σ s/T, by the GPU-seconds held: it can pass 1
    where throughput is concave, because part of a GPU then does more than its part of the work.
    `fairness_jain` is Jain's index (Σx)²/(N Σx²) of the fractions x of each agent's requests
    that were served.

    Raises:
        ValueError: the batch does not record its episodes, or this one has no step yet.
    """
    if batch.history.shape[1] == 0:
        raise ValueError(
            "metrics need every step of an episode: make the batch with record=True, the vector "
            "environment with episode_metrics=True"
        )
    history = batch.recorded(b)
    if not len(history):
        raise ValueError(f"environment {b} has taken no step of its episode: there is nothing to measure")
    if batch.scenario.service == "requests":
        return _metrics_of_calls(batch, b)
    steps, count = history.shape
    agents, dt = batch.agents[b], batch.scenario.dt
    arrived = batch.inflows[:steps, b].cumsum(axis=0)
    quantiles, goodput = np.empty((count + 1, len(PERCENTILES))), np.empty(count)
    segments, estimate = np.empty((count * (2 * steps + 1), 3)), np.empty(count)
    _measure(history, arrived, np.ascontiguousarray(agents), dt, segments, quantiles, goodput, estimate)
    in_transit = _in_transit(batch, b)
    return _gathered(batch, b, goodput.tolist(), estimate.tolist(), quantiles.tolist(), in_transit)


def _metrics_of_calls(batch: "Batch", b: int) -> dict[str, object]:
    """`episode_metrics` where agents serve calls, with the names of OF_CALLS besides."""
    calls = measure(batch, b, PERCENTILES)
    history, throughput = batch.recorded(b), batch.agents[b]["throughput"].tolist()
    estimates = [_paper_latency(history[:, i], throughput[i]) for i in range(batch.num_agents)]
    metrics = _gathered(batch, b, calls.goodput.tolist(), estimates, calls.quantiles, 0.0)
    per_agent: Any = metrics.pop("per_agent")
    for own, tokens in zip(per_agent.values(), calls.tokens[:-1], strict=True):
        own.update(tokens)
    return {**metrics, **calls.tokens[-1], **calls.tasks, **batch.own_metrics(b), "per_agent": per_agent}


def _gathered(
    batch: "Batch",
    b: int,
    goodput: list[float],
    estimates: list[float],
    quantiles: list[list[float]],
    in_transit: float,
) -> dict[str, object]:
    """The metrics from the recorded steps and what was measured of each agent's requests."""
    history = batch.recorded(b)
    steps = len(history)
    totals = plain(history).sum(axis=0).view(OUTCOME)[:, 0]
    # Python's own floats: a few numbers at a time are slow as NumPy scalars.
    sums = {name: totals[name].tolist() for name in names_of(OUTCOME)}
    sums |= {"came": batch.inflows[:steps, b].sum(axis=0).tolist(), "goodput": goodput}
    sums |= {"unfinished": history["queue"][-1].tolist()}
    throughput: list[float] = batch.agents[b]["throughput"].tolist()
    return {
        "objective": float(objectives(batch)[b]),
        **_overall(batch, steps, sums, throughput, in_transit, quantiles[-1]),
        "min_share_shortfall": float(batch.totals["shortfall"][b]) / steps,
        "reallocations": sum(sums["reallocated"]),
        "cold_starts": sum(sums["cold_start"]),
        **_paper_estimators(estimates, throughput, sums["share"], steps),
        **{name: _number(name, function(batch, b)) for name, function in REGISTERED.items()},
        "per_agent": _per_agent(batch, steps, sums, estimates, quantiles),
    }


def _number(name: str, value: object) -> float:
    """What a registered metric returned, if it is a number."""
    try:
        return float(cast(Any, value))
    except (TypeError, ValueError):
        raise ValueError(f"the registered metric {name!r} must return a number, got {value!r:.80}") from None


def _overall(
    batch: "Batch",
    steps: int,
    sums: Sums,
    throughput: list[float],
    in_transit: float,
    quantiles: list[float],
) -> dict[str, float]:
    """Metrics over all agents, from the sums over the steps of each, (N,), and the quantiles of all."""
    dt = batch.scenario.dt
    span = steps * dt
    came, served = sums["came"], sums["served"]
    requests, waiting = sum(came), sum(sums["backlog"]) * dt
    gpu_seconds = sum(sums["share"]) * dt
    cost = gpu_seconds * batch.scenario.platform.usd_per_gpu_hour / 3600
    fractions = [done / asked for done, asked in zip(served, came, strict=True) if asked > 0]
    return {
        "latency_mean_s": ratio(waiting, requests),
        **dict(zip(LATENCIES, quantiles, strict=True)),
        "task_latency_mean_s": ratio(waiting + in_transit, sum(sums["arrivals"])),
        "slo_attainment": 1 - ratio(sum(sums["late"]), requests),
        "throughput_rps": sum(served) / span,
        "goodput_rps": sum(sums["goodput"]) / span,
        "backlog_end": sum(sums["unfinished"]),
        "unfinished": sum(sums["unfinished"]),
        "arrived": requests,
        "gpu_utilisation": ratio(sum(s / t for s, t in zip(served, throughput, strict=True)), gpu_seconds),
        "gpu_seconds": gpu_seconds,
        "cost_usd": cost,
        "cost_usd_per_1k": 1000 * ratio(cost, sum(served)),
        "fairness_jain": ratio(sum(fractions) ** 2, len(fractions) * sum(x * x for x in fractions)),
    }


def _paper_estimators(
    estimates: list[float], throughput: list[float], shares: list[float], steps: int
) -> dict[str, float]:
    """The estimators of arXiv 2512.22149, Table II."""
    mean = sum(estimates) / len(estimates)
    return {
        "paper_latency_s": mean,
        "paper_throughput_rps": sum(t * g for t, g in zip(throughput, shares, strict=True)) / steps,
        "paper_latency_std_s": math.sqrt(sum((x - mean) ** 2 for x in estimates) / len(estimates)),
    }


def _per_agent(
    batch: "Batch", steps: int, sums: Sums, estimates: list[float], quantiles: list[list[float]]
) -> dict[str, dict[str, float]]:
    """Metrics of each agent by its name."""
    dt = batch.scenario.dt
    span = steps * dt
    return {
        name: {
            "latency_mean_s": ratio(sums["backlog"][i] * dt, sums["came"][i]),
            **dict(zip(LATENCIES, quantiles[i], strict=True)),
            "slo_attainment": 1 - ratio(sums["late"][i], sums["came"][i]),
            "throughput_rps": sums["served"][i] / span,
            "goodput_rps": sums["goodput"][i] / span,
            "backlog_end": sums["unfinished"][i],
            "unfinished": sums["unfinished"][i],
            "arrived": sums["came"][i],
            "share_mean": sums["share"][i] / steps,
            "paper_latency_s": estimates[i],
        }
        for i, name in enumerate(batch.scenario.agent_names)
    }


def mean_metrics(episodes: Sequence[Metrics]) -> Metrics:
    """Mean of every metric over the episodes in which it is defined; NaN where it never is."""
    means: Metrics = {}
    for name in episodes[0]:
        values = np.array([metrics[name] for metrics in episodes])
        defined = values[~np.isnan(values)]
        means[name] = float(defined.mean()) if defined.size else float("nan")
    return means
