"""Traffic: the laws by which requests arrive, and the draws that make an episode of them."""

from itertools import pairwise
from math import prod
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from gpualloc_env.agents import Model, NonNegative, Positive
from gpualloc_env.compiled import compiled
from gpualloc_env.generator import (
    POISSON_CACHE,
    cached_poisson_quantile,
    exponential,
    poisson_quantile,
    uniform,
)
from gpualloc_env.state import COLD_START_S, KAPPA, THROUGHPUT, AnyArray, Array


class Burst(Model):
    """A two-state process: the rate is `ratio` times higher while on.

    On and off times are exponential with means `on_s` and `off_s`; the mean rate is kept.
    """

    common: bool = False
    """Whether one process drives all agents; otherwise each has an independent one of its own."""
    ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 4.0
    on_s: Positive = 10.0
    off_s: Positive = 50.0

    @property
    def off_factor(self) -> float:
        """Rate while off, as a multiple of the mean rate: (on + off) / (ratio · on + off)."""
        return (self.on_s + self.off_s) / (self.ratio * self.on_s + self.off_s)


class Cycle(Model):
    """A sinusoidal factor on all rates, day and night: 1 + amplitude · cos(2π (t − peak_s) / period_s)."""

    amplitude: Annotated[float, Field(ge=0, le=1)]
    """Peak over mean, less one."""
    period_s: Positive
    peak_s: NonNegative = 0.0
    """Time of a peak, from the start of the episode [s]."""

    def factors(self, edges: Array) -> Array:
        """Mean of the factor between each two of some times, (n + 1,) [s]: (n,)."""
        radians = 2 * np.pi / self.period_s
        swing = np.diff(np.sin(radians * (edges - self.peak_s))) / (radians * np.diff(edges))
        # The integral over a whole period rounds to just below zero where the rate touches it.
        return np.maximum(0.0, 1 + self.amplitude * swing)


class Surge(Model):
    """The rate of one agent is multiplied by `factor` from `start_s` to `end_s`."""

    agent: str
    factor: NonNegative
    start_s: NonNegative
    end_s: Positive

    @model_validator(mode="after")
    def _check(self) -> "Surge":
        if self.end_s <= self.start_s:
            raise ValueError(f"end_s must be after start_s = {self.start_s:g}, got {self.end_s:g}")
        return self


class Traffic(Model):
    """How requests arrive from outside, before any routing among the agents."""

    law: Literal["constant", "poisson"] = "poisson"
    """`constant`: rate × dt requests in every step, fractions included. `poisson`: random counts."""
    rates_rps: tuple[NonNegative, ...] | None = None
    """Mean rate of each agent [requests/s], in the order of the agents, before any surge."""
    load: Annotated[float, Field(gt=0, le=10)] | None = None
    """ρ = Σ λ̄_i/T_i / G to which all rates are scaled; none leaves them as they are.

    Surges count as they fall into the episode, a cycle with its mean over a period.
    """
    mix_concentration: Annotated[int, Field(ge=1)] | None = None
    """Draw each episode's mix of rates from a symmetric Dirichlet law of this concentration."""
    burst: Burst | None = None
    cycle: Cycle | None = None
    surges: tuple[Surge, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Traffic":
        if (self.rates_rps is None) == (self.mix_concentration is None):
            raise ValueError("give either rates_rps or mix_concentration, the law of a drawn mix")
        if self.mix_concentration is not None and self.load is None:
            raise ValueError("a drawn mix needs a load, such as load = 0.8, to set its total rate")
        if self.rates_rps is not None and not any(self.rates_rps):
            raise ValueError("rates_rps must not all be zero; no request would ever arrive")
        return self

    def surge_profile(self, names: tuple[str, ...], steps: int, dt: float) -> Array:
        """Mean over each step of the factor of the surges on each agent's rate, (steps + 1, N)."""
        edges = dt * np.arange(steps + 2)
        profile = np.ones((steps + 1, len(names)))
        turns = sorted({turn for surge in self.surges for turn in (surge.start_s, surge.end_s)})
        for start, end in pairwise(turns):
            inside = np.diff(np.clip(edges, start, end)) / dt
            for i, name in enumerate(names):
                active = [s.factor for s in self.surges if s.agent == name and s.start_s <= start < s.end_s]
                profile[:, i] += (prod(active) - 1) * inside
        return profile

    def cycle_profile(self, steps: int, dt: float) -> Array:
        """Mean over each step of the cycle's factor on all rates, (steps + 1,)."""
        edges: Array = dt * np.arange(steps + 2, dtype=np.float64)
        return np.ones(steps + 1) if self.cycle is None else self.cycle.factors(edges)


class Replay(NamedTuple):
    """The visits of the requests of a log's W episodes, in the order of their steps.

    They stand for (W, T + 1, N) numbers of which most are zero, so their room does not grow as dt shrinks.
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


CONSTANT, POISSON, WINDOWS = 0, 1, 2
# Room that the draws of one episode need for each agent: Poisson quantiles of its rate while off
# and while on, then the state of its burst process, the time until that changes [s] and the
# fraction of the step that it was on.
_ON, _REMAINING, _TIME_ON = 2 * POISSON_CACHE, 2 * POISSON_CACHE + 1, 2 * POISSON_CACHE + 2
SCRATCH = 2 * POISSON_CACHE + 3


@compiled
def draw_agents(generator: AnyArray, source: Source, nominal: AnyArray, agents: AnyArray) -> None:
    """Draw one episode's agents, (N, AGENT_COLUMNS), around their nominal parameters.

    Base throughput, model size and κ are each uniform within the spread.
    """
    low, width = 1.0 - source.agent_spread, 2.0 * source.agent_spread
    for i in range(agents.shape[0]):
        for column in range(agents.shape[1]):
            agents[i, column] = nominal[i, column]
        agents[i, THROUGHPUT] *= low + width * uniform(generator)
        agents[i, KAPPA] *= low + width * uniform(generator)
        loading = nominal[i, COLD_START_S] - source.container_start_s
        agents[i, COLD_START_S] = source.container_start_s + loading * (low + width * uniform(generator))


@compiled
def total_rates(source: Source, external: AnyArray, total: AnyArray) -> None:
    """Solve the traffic equations λ = external + Wᵀλ, (N,) [requests/s], with the visits at hand."""
    if source.visits.shape[0] == 0:
        for i in range(external.shape[0]):
            total[i] = external[i]
        return
    for i in range(external.shape[0]):
        total[i] = 0.0
        for j in range(external.shape[0]):
            total[i] += source.visits[i, j] * external[j]


@compiled
def draw_rates(
    generator: AnyArray,
    source: Source,
    throughput: AnyArray,
    rates: AnyArray,
    mean_rate: AnyArray,
    scratch: AnyArray,
) -> None:
    """Set one episode's external rates and mean total rates, (N,) [requests/s] each.

    The mix of external rates is drawn if the source says so, and scaled to its load. `scratch`
    is (N,) of room.
    """
    agents = rates.shape[0]
    for i in range(agents):
        rates[i] = source.rates[i]
        # A gamma variable of integer shape is a sum of exponentials; normalised, they are Dirichlet.
        for _ in range(source.concentration):
            rates[i] += exponential(generator, 1.0)
        scratch[i] = rates[i] * source.load_profile[i]
    if source.load > 0.0:
        total_rates(source, scratch, mean_rate)
        demand = 0.0
        for i in range(agents):
            demand += mean_rate[i] / throughput[i]
        for i in range(agents):
            rates[i] *= source.load / demand
    for i in range(agents):
        scratch[i] = rates[i] * source.mean_profile[i]
    total_rates(source, scratch, mean_rate)


@compiled
def _time_on(generator: AnyArray, source: Source, on: bool, remaining: float) -> tuple[float, bool, float]:
    """Fraction of one step that a burst process spends on, its state after it and the time left in it."""
    if remaining >= source.dt:
        return 1.0 if on else 0.0, on, remaining - source.dt
    left = source.dt
    time_on = 0.0
    while remaining < left:
        if on:
            time_on += remaining
        left -= remaining
        on = not on
        remaining = exponential(generator, source.burst_means[1 if on else 0])
    if on:
        time_on += left
    return time_on / source.dt, on, remaining - left


@compiled
def replay_arrivals(replay: Replay, episode: int, arrivals: AnyArray) -> None:
    """Set one episode's external arrivals to a log's, (T + 1, N) [requests].

    Episodes repeat after W. Row T holds the next one's first row, but nothing after the last.
    """
    rows, agents = arrivals.shape
    for t in range(rows):
        for i in range(agents):
            arrivals[t, i] = 0.0
    start = episode % replay.episodes * (rows - 1)
    first, after = 0, replay.step.shape[0]
    while first < after:
        middle = (first + after) // 2
        if replay.step[middle] < start:
            first = middle + 1
        else:
            after = middle
    for visit in range(first, replay.step.shape[0]):
        t = replay.step[visit] - start
        if t >= rows:
            break
        arrivals[t, replay.agent[visit]] += replay.requests[visit]


@compiled
def draw_arrivals(
    generator: AnyArray,
    source: Source,
    rates: AnyArray,
    arrivals: AnyArray,
    scratch: AnyArray,
) -> None:
    """Draw one episode's external arrivals, (T + 1, N) [requests].

    A step's count is Poisson with the integral of the rate over the step for its mean, the
    burst process followed in continuous time, so the law does not depend on dt. `scratch`
    is room for (N, SCRATCH) numbers: the burst processes and the cached Poisson quantiles.
    """
    rows, agents = arrivals.shape
    bursty = source.burst_means[1] > 0.0
    processes = 0 if not bursty else (1 if source.common_burst else agents)
    off_factor, on_factor = source.burst_factors[0], source.burst_factors[1]
    for i in range(agents):
        for k in range(2 * POISSON_CACHE):
            scratch[i, k] = np.nan
        scratch[i, _TIME_ON] = 0.0
    for i in range(processes):
        share_on = source.burst_means[1] / (source.burst_means[0] + source.burst_means[1])
        scratch[i, _ON] = 1.0 if uniform(generator) < share_on else 0.0
        scratch[i, _REMAINING] = exponential(generator, source.burst_means[int(scratch[i, _ON])])
    for t in range(rows):
        for i in range(agents):
            if i < processes:
                was_on, remaining = scratch[i, _ON] > 0.0, scratch[i, _REMAINING]
                scratch[i, _TIME_ON], on, scratch[i, _REMAINING] = _time_on(
                    generator, source, was_on, remaining
                )
                scratch[i, _ON] = 1.0 if on else 0.0
            fraction = scratch[0 if source.common_burst else i, _TIME_ON]
            mean = rates[i] * source.profile[t, i] * source.dt
            if bursty:
                mean *= off_factor + fraction * (on_factor - off_factor)
            if source.kind == POISSON:
                probability = uniform(generator)
                if fraction == 0.0:
                    mean = cached_poisson_quantile(probability, mean, scratch[i, :POISSON_CACHE])
                elif fraction == 1.0:
                    cache = scratch[i, POISSON_CACHE : 2 * POISSON_CACHE]
                    mean = cached_poisson_quantile(probability, mean, cache)
                else:
                    mean = poisson_quantile(probability, mean)
            arrivals[t, i] = mean
