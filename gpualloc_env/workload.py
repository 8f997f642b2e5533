"""Traffic: the laws by which requests arrive, and the draws that make an episode of them."""

from itertools import pairwise
from math import inf, prod
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from gpualloc_env.agents import Model, NonNegative, Positive
from gpualloc_env.compiled import inlined
from gpualloc_env.generator import (
    POISSON_CACHE,
    advance,
    cached_poisson_quantile,
    exponential,
    random_bits,
    seed_generator,
    to_unit,
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
# What a burst process is in a step: off or on throughout, or a part of it each.
OFF, ON, BETWEEN = 0, 1, 2
# Room for Poisson quantiles of an agent's rate in each of them.
SCRATCH = 3 * POISSON_CACHE


@inlined
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


@inlined
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


@inlined
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
        remaining = exponential(process, source.burst_means[1 if on else 0])
    if on:
        time_on += left
    return time_on / source.dt, on, remaining - left


@inlined
def _draw_steps(
    generator: AnyArray, poisson: bool, rate: float, profile: AnyArray, cache: AnyArray, arrivals: AnyArray
) -> None:
    """Draw an agent's arrivals [requests] in some steps, at `rate` [requests per step] times the profile."""
    a, b, c, d = generator[0], generator[1], generator[2], generator[3]
    for t in range(arrivals.shape[0]):
        mean = rate * profile[t]
        if poisson:
            bits, a, b, c, d = advance(a, b, c, d)
            arrivals[t] = cached_poisson_quantile(to_unit(bits), mean, cache)
        else:
            arrivals[t] = mean
    generator[0], generator[1], generator[2], generator[3] = a, b, c, d


@inlined
def draw_arrivals(
    generator: AnyArray,
    source: Source,
    rates: AnyArray,
    arrivals: AnyArray,
    streams: AnyArray,
    scratch: AnyArray,
) -> None:
    """Draw one episode's external arrivals, (T + 1, N) [requests].

    A step's count is Poisson with the integral of the rate over the step for its mean, the
    burst process followed in continuous time, so the law does not depend on dt. Each agent's
    counts and its burst process have generators of their own, seeded by the environment's, so
    a longer episode begins as a shorter one does; a common burst process is one seed for all.

    Args:
        generator: of the environment, (4,) uint64.
        source: the law.
        rates: mean external rates, (N,) [requests/s].
        arrivals: where to write.
        streams: room for two generators, (2, 4) uint64.
        scratch: room for SCRATCH numbers, the cached Poisson quantiles.
    """
    counts, process = streams[0], streams[1]
    rows, agents = arrivals.shape
    dt, factors, means = source.dt, source.burst_factors, source.burst_means
    bursty = means[ON] > 0.0
    common = random_bits(generator)
    for i in range(agents):
        for k in range(SCRATCH):
            scratch[k] = np.nan
        seed_generator(counts, random_bits(generator))
        own = random_bits(generator)
        if bursty:
            seed_generator(process, common if source.common_burst else own)
        level = ON if bursty and uniform(process) < means[ON] / (means[OFF] + means[ON]) else OFF
        remaining = exponential(process, means[level]) if bursty else inf
        t = steady = 0
        turning = False
        while t < rows:
            if turning:
                remaining = max(0.0, remaining - steady * dt)
                fraction, on, remaining = _time_on(process, source, level == ON, remaining)
                level, row, end = ON if on else OFF, BETWEEN, t + 1
                factor = factors[OFF] + fraction * (factors[ON] - factors[OFF])
            else:
                steady = int(min(remaining / dt, float(rows - t)))
                row, end, factor = level, t + steady, factors[level]
            cache = scratch[row * POISSON_CACHE : (row + 1) * POISSON_CACHE]
            rate, profile = rates[i] * dt * factor, source.profile[t:end, i]
            _draw_steps(counts, source.kind == POISSON, rate, profile, cache, arrivals[t:end, i])
            t, turning = end, not turning


@inlined
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
