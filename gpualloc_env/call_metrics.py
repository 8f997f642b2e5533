"""Metrics of an episode whose agents serve calls: exact, call by call and task by task.

What is not finished by the end of the episode enters latencies with its age, as it does in the fluid: a call
without a first token the times to first token, an unfinished call the latencies, an unfinished task the
times of tasks. Percentiles are interpolated linearly between the two nearest of the sorted values.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpualloc_env.simulation.state import AnyArray, Array

if TYPE_CHECKING:
    from gpualloc_env.batch import Batch

TOKEN_METRICS = ("ttft_mean_s", "ttft_p95_s", "tpot_mean_s", "output_tokens_per_s")
"""Per agent and in all: time to first token, from the issue of a call to the end of its prefill, and time per
output token after the first, (end − first token)/(o − 1), over the finished calls of more than one token; and
output tokens of finished calls per second of the episode."""
TASK_METRICS = ("task_latency_mean_s", "task_latency_p95_s", "tasks_finished", "task_slo_attainment")
"""In all: times of tasks from arrival to end, and the fraction within `task_slo_s`."""


class Measured(NamedTuple):
    """What is known of the calls of an episode, of each agent and, in the last row, of all."""

    quantiles: list[list[float]]  # (N + 1, Q) [s] of the latencies
    goodput: Array  # (N,) calls that were finished within their objective
    tokens: list[dict[str, float]]  # N + 1 of TOKEN_METRICS
    tasks: dict[str, float]  # TASK_METRICS


class Columns(NamedTuple):
    """What times of tokens are made of, for some calls."""

    issued: Array  # [s]
    first_token: Array  # [s]
    finished: Array  # [s]
    output: AnyArray  # [tokens]

    def of(self, places: AnyArray) -> "Columns":
        """Those of some of the calls."""
        return Columns._make(column[places] for column in self)


def measure(batch: "Batch", b: int, percentiles: tuple[float, ...]) -> Measured:
    """Measure the episode of environment `b` up to now."""
    service, end, count = batch.service, float(batch.clock[b]) * batch.scenario.dt, batch.num_agents
    run = service.run[b]
    calls = service.calls[b, : run["calls"]]
    calls = calls[np.isfinite(calls["issued"])]
    agent, slo = calls["agent"], batch.agents[b]["slo"]
    latency = np.minimum(calls["finished"], end) - calls["issued"]
    within = np.isfinite(calls["finished"]) & (calls["finished"] <= calls["issued"] + slo[agent])
    places = [np.flatnonzero(agent == i) for i in range(count)]
    quantiles = [_quantiles(latency[own], percentiles) for own in places]
    columns = Columns(*(np.ascontiguousarray(calls[name]) for name in Columns._fields))
    return Measured(
        quantiles=[*quantiles, _quantiles(latency, percentiles)],
        goodput=np.bincount(agent[within], minlength=count).astype(np.float64),
        tokens=[_tokens(columns.of(own), end) for own in places] + [_tokens(columns, end)],
        tasks=_tasks(service.tasks[b, : run["next_task"]], end, batch.scenario.task_slo_s),
    )


def _quantiles(values: Array, percentiles: tuple[float, ...]) -> list[float]:
    if not len(values):
        return [float("nan")] * len(percentiles)
    # NumPy's own function takes ten times as long for the few hundred calls of an episode.
    ordered, last = np.sort(values), len(values) - 1
    found: list[float] = []
    for percentile in percentiles:
        below = int(percentile * last)
        low, high = ordered[below].item(), ordered[min(below + 1, last)].item()
        found.append(low + (percentile * last - below) * (high - low))
    return found


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _tokens(calls: Columns, end: float) -> dict[str, float]:
    """Times of tokens, and their number a second, of some calls in an episode with that end [s]."""
    first = np.minimum(calls.first_token, end) - calls.issued
    finished = calls.finished < np.inf
    several = calls.of(np.flatnonzero(finished & (calls.output > 1)))
    per_token = (several.finished - several.first_token) / (several.output - 1)
    rate = float(calls.output[finished].sum()) / end
    values = (_mean(first), _quantiles(first, (0.95,))[0], _mean(per_token), rate)
    return dict(zip(TOKEN_METRICS, values, strict=True))


def _tasks(tasks: AnyArray, end: float, slo_s: float) -> dict[str, float]:
    """Times of tasks in an episode with that end [s]."""
    spent = np.minimum(tasks["finished"], end) - tasks["time"]
    values = (
        _mean(spent),
        _quantiles(spent, (0.95,))[0],
        float(np.isfinite(tasks["finished"]).sum()),
        _mean((spent <= slo_s).astype(np.float64)),
    )
    return dict(zip(TASK_METRICS, values, strict=True))
