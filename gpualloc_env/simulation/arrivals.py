"""The draws that make an episode of a law of traffic."""

from math import inf
from typing import NamedTuple

import numpy as np

from gpualloc_env.compiled import inlined
from gpualloc_env.simulation.random import (
    exponential,
    poisson_quantile,
    random_bits,
    seed_generator,
    tabulate_poisson,
    tabulated_quantile,
    uniform,
)
from gpualloc_env.simulation.state import AnyArray, Array


class Replay(NamedTuple):
    """The visits of the requests of a log's W episodes, in the order of their steps.

    They stand for (W, T + 1, N) numbers of which most are zero, so their memory does not grow as dt shrinks.
    """

    step: AnyArray  # (m,) int64, counted from the start of the first episode
    agent: AnyArray  # (m,) int64
    requests: Array  # (m,) [requests]
    episodes: int  # W


NO_REPLAY = Replay(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), 0)


class Source(NamedTuple):
    """Everything that the compiled draw of an episode reads; the same for all environments."""

    kind: int  # CONSTANT, POISSON or WINDOWS
    rates: Array  # (N,) [requests/s] mean external rates before the profile
    profile: Array  # (T + 1, N) factor on the rate
    mean_profile: Array  # (N,) its mean over the T steps of an episode
    load_profile: Array  # (N,) that mean as `load` counts it: with a cycle at its mean over a period
    visits: Array  # (N, N) total rates = visits @ external rates; (0, 0) where nothing is routed
    load: float  # ρ · G that the rates are scaled to; 0 where they are taken as they are
    concentration: int  # of the Dirichlet law; 0 where the mix is fixed
    burst_factors: Array  # (2,) factor on the rate while off and on
    burst_means: Array  # (2,) [s] mean time off and on; 0 where there is no burst process
    common_burst: bool  # whether one burst process drives all agents
    agent_spread: float  # each episode's agents are drawn within this fraction of their own parameters
    container_start_s: float  # [s] part of a cold start that the size of a model does not change
    replay: Replay  # episodes of a log, none for synthetic traffic
    dt: float
    steady: bool  # whether the profile is the same in all steps
    warm: bool  # whether all models are loaded at reset


TABULATED = 128  # counts that a table of a Poisson law has at most
CONSTANT, POISSON, WINDOWS = 0, 1, 2
OFF, ON = 0, 1  # states of a burst process


class ArrivalScratch(NamedTuple):
    """Where one episode's arrivals are drawn, in memory that lies together."""

    arrivals: Array  # (T + 1, N) [requests]
    tables: Array  # of a Poisson law off and on, (2, TABULATED)


def new_arrival_scratch(steps: int, agents: int) -> ArrivalScratch:
    """Room for the arrivals of T steps and N agents."""
    return ArrivalScratch(np.empty((steps + 1, agents)), np.empty((2, TABULATED)))


@inlined
def draw_agents(generator: AnyArray, source: Source, nominal: AnyArray, agents: AnyArray) -> None:
    """Draw one episode's agents, (N,) of AGENT, around their nominal parameters.

    Base throughput, model size and κ are each uniform within the spread.
    """
    low, width = 1.0 - source.agent_spread, 2.0 * source.agent_spread
    for i in range(agents.shape[0]):
        agents[i] = nominal[i]
        agents[i].throughput *= low + width * uniform(generator)
        agents[i].kappa *= low + width * uniform(generator)
        loading = nominal[i].cold_start - source.container_start_s
        size = low + width * uniform(generator)
        agents[i].cold_start = source.container_start_s + loading * size
        agents[i].need_mb += (size - 1.0) * agents[i].model_mb
        agents[i].model_mb *= size


@inlined
def total_rate(source: Source, state: AnyArray, profile: AnyArray, i: int) -> float:
    """λ_i of the traffic equations λ = external + Wᵀλ [requests/s].

    The external rates are those in `state`, (N,), times their factors in `profile`, (N,).
    """
    if source.visits.shape[0] == 0:
        return state[i].rate * profile[i]
    total = 0.0
    for j in range(state.shape[0]):
        total += source.visits[i, j] * (state[j].rate * profile[j])
    return total


@inlined
def draw_rates(generator: AnyArray, source: Source, agents: AnyArray, state: AnyArray) -> None:
    """Set one episode's external rates, `state.rate`, and mean total rates, `state.mean_rate`, (N,).

    The mix of external rates is drawn if the source says so, and scaled to its load.
    """
    for i in range(state.shape[0]):
        state[i].rate = source.rates[i]
        # A gamma variable of integer shape is a sum of exponentials; normalised, they are Dirichlet.
        for _ in range(source.concentration):
            state[i].rate += exponential(generator, 1.0)
    if source.load > 0.0:
        demand = 0.0
        for i in range(state.shape[0]):
            demand += total_rate(source, state, source.load_profile, i) / agents[i].throughput
        for i in range(state.shape[0]):
            state[i].rate *= source.load / demand
    for i in range(state.shape[0]):
        state[i].mean_rate = total_rate(source, state, source.mean_profile, i)


@inlined
def _time_on(process: AnyArray, source: Source, on: bool, remaining: float) -> tuple[float, bool, float]:
    """Follow a burst process through a step in which it turns.

    Args:
        process: the generator of its times.
        source: their means, and dt.
        on: its state at the start of the step.
        remaining: time from there to its next turn [s], less than dt.

    Returns:
        The fraction of the step that it spends on, its state after the step and the time left in it.
    """
    left = source.dt
    time_on = 0.0
    while remaining < left:
        if on:
            time_on += remaining
        left -= remaining
        on = not on
        remaining = exponential(process, source.burst_means[ON if on else OFF])
    if on:
        time_on += left
    return time_on / source.dt, on, remaining - left


@inlined
def draw_arrivals(
    generators: AnyArray, source: Source, state: AnyArray, arrivals: AnyArray, tables: Array
) -> None:
    """Draw one episode's external arrivals, (T + 1, N) [requests].

    A step's count is Poisson with the integral of the rate over the step for its mean, the
    burst process followed in continuous time, so the law does not depend on dt. Each agent's
    counts and its burst process have generators of their own, seeded by the environment's, so
    a longer episode begins as a shorter one does; a common burst process is one seed for all.

    Args:
        generators: the environment's own, and two for the draws of an agent, (3, 4) uint64.
        source: the law.
        state: mean external rates in `rate`, (N,) of STATE.
        arrivals: where to write.
        tables: scratch for tables of Poisson laws off and on, (2, TABULATED).
    """
    own, counts, process = generators[0], generators[1], generators[2]
    dt, factors, means = source.dt, source.burst_factors, source.burst_means
    bursty, rows = means[ON] > 0.0, arrivals.shape[0]
    tabulated = source.kind == POISSON and source.steady
    common = random_bits(own)
    for i in range(state.shape[0]):
        seed_generator(counts, random_bits(own))
        individual = random_bits(own)
        if bursty:
            seed_generator(process, common if source.common_burst else individual)
        on = bursty and uniform(process) < means[ON] / (means[OFF] + means[ON])
        remaining = exponential(process, means[ON if on else OFF]) if bursty else inf
        rate, profile = state[i].rate * dt, source.profile[:, i]
        size_off = size_on = 0
        if tabulated:
            size_off = tabulate_poisson(rate * factors[OFF] * profile[0], tables[OFF])
            if bursty:
                size_on = tabulate_poisson(rate * factors[ON] * profile[0], tables[ON])
        t = 0
        while t < rows:
            # Steps in which the process does not turn, and the one in which it does.
            turn = t + int(min(remaining / dt, float(rows - t)))
            level = ON if on else OFF
            table = tables[level, : size_on if on else size_off]
            for step in range(t, turn):
                mean = rate * factors[level] * profile[step]
                if tabulated:
                    mean = tabulated_quantile(uniform(counts), mean, table)
                elif source.kind == POISSON:
                    mean = poisson_quantile(uniform(counts), mean)
                arrivals[step, i] = mean
            if turn < rows:
                remaining = max(0.0, remaining - (turn - t) * dt)
                fraction, on, remaining = _time_on(process, source, on, remaining)
                mean = rate * (factors[OFF] + fraction * (factors[ON] - factors[OFF])) * profile[turn]
                if source.kind == POISSON:
                    mean = poisson_quantile(uniform(counts), mean)
                arrivals[turn, i] = mean
            t = turn + 1


@inlined
def first_from(times: AnyArray, start: float) -> int:
    """The first of sorted times, (n,), that is not before a start; n where all are."""
    first, after = 0, times.shape[0]
    while first < after:
        middle = (first + after) // 2
        if times[middle] < start:
            first = middle + 1
        else:
            after = middle
    return first


@inlined
def replay(source: Source, window: int, arrivals: AnyArray, state: AnyArray) -> None:
    """Set one episode's external arrivals to a log's, (T + 1, N) [requests], and `state.mean_rate`.

    Windows repeat after W. Row T holds the next one's first row, but nothing after the last.
    """
    log = source.replay
    steps = arrivals.shape[0] - 1
    for i in range(state.shape[0]):
        state[i].rate = 0.0
        for t in range(steps + 1):
            arrivals[t, i] = 0.0
    start = window % log.episodes * steps
    for visit in range(first_from(log.step, start), log.step.shape[0]):
        t = log.step[visit] - start
        if t > steps:
            break
        arrivals[t, log.agent[visit]] += log.requests[visit]
    for t in range(steps):
        for i in range(state.shape[0]):
            state[i].rate += arrivals[t, i] / (steps * source.dt)
    for i in range(state.shape[0]):
        state[i].mean_rate = total_rate(source, state, source.mean_profile, i)
