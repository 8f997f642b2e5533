"""What a step does whatever serves: it grants shares, charges changes, ages models and prices the result.

Sections 2 and 3 of the model but for arrivals and service, which `fluid` and `requests` have of their own.
"""

from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.state import AnyArray, Array

RATE_TIME_CONSTANT_S = 10.0
# Requests and shares are real numbers: less than this of one is rounding, not work or a change.
NEGLIGIBLE = 1e-9
# Clocks are sums of dt: a time this close to its limit, or this part of it, has reached it.
CLOCK_TOLERANCE = 1e-9
# Actions are float32: a request within their resolution of a whole slice is that slice.
SLICE_TOLERANCE = 1e-6
OK, NOT_A_NUMBER, EPISODE_OVER = 0, 1, 2


class World(NamedTuple):
    """The arrays that B environments live in, T steps an episode."""

    settings: AnyArray  # (1,) of SETTINGS
    agents: AnyArray  # (B, N) of AGENT, or (1, N) where all episodes have the same
    state: AnyArray  # (B, N) of STATE
    clock: AnyArray  # (B,) int64, steps taken in the running episodes
    worth: AnyArray  # (B,) of WORTH, what the last step was worth
    episode: AnyArray  # (B,) of EPISODE
    history: AnyArray  # (B, T, N) of OUTCOME, or T = 0 to record none
    routing: Array  # W, (N, N): finished work of row j becomes arrivals of column i; (0, 0) for none
    rate_gain: Array  # (T + 1,) weight of a step's rate in the smoothed one
    arrivals: Array  # (T + 1, B, N) [requests] from outside
    inflows: Array  # (T + 1, B, N) [requests] routed ones included; `arrivals` itself where none are
    generators: AnyArray  # (B, 3, 4) uint64: the environment's own, and two for the draws of an agent
    windows: AnyArray  # (B,) int64, index of the next window of a log


class Sums(NamedTuple):
    """What the terms of the objective are made of: sums over the agents of a step."""

    backlog: float  # [requests] Σ ω·backlog
    late: float  # [requests] Σ ω·late
    held: float  # [GPU] Σ g
    done: float  # [requests] Σ s
    missing: float  # [GPU] Σ max(0, R − g), over agents with work
    guaranteed: float  # [GPU] Σ R, over agents with work
    tasks: float  # mean over the step of the number in the system


@inlined
def clip(fraction: Any) -> float:
    """The fraction within [0, 1]."""
    return 0.0 if fraction < 0.0 else (1.0 if fraction > 1.0 else fraction)


@inlined
def scale_to_fit(requested: AnyArray) -> float:
    """The factor on all requested fractions, (N,), with which they do not exceed the platform."""
    asked = 0.0
    for i in range(requested.shape[0]):
        asked += clip(requested[i])
    return 1.0 / asked if asked > 1.0 else 1.0


@inlined
def grant(fraction: float, gpus: float, max_share: float, slice_: float) -> float:
    """The share [GPU] that a scaled fraction of G GPUs is granted: capped, and rounded down to slices."""
    share = fraction * gpus
    share = max_share if share > max_share else share
    if slice_ > 0.0:
        slices = share / slice_
        # Never near a whole slice, however many they are: rounding must not exceed the capacity.
        share = np.floor(slices + SLICE_TOLERANCE * min(slices, 1000.0)) * slice_
    return share


@inlined
def charge(now: Any, did: Any, agent: Any, settings: Any, share: float, t: int) -> None:
    """Write what a new share costs: the outcome's `share`, `delay`, `reallocated` and `cold_start`.

    A change of share and a model that loads delay service, they do not slow it.
    """
    holds = share > 0.0
    change = abs(share - now.share)
    charged = t > 0 and holds and change > settings.deadband + NEGLIGIBLE
    did.share = share
    did.delay = min(settings.dt, (settings.reallocation_s if charged else 0.0) + now.loading)
    did.reallocated = 1.0 if charged else 0.0
    did.cold_start = 1.0 if holds and 0.0 < now.loading == agent.cold_start else 0.0


@inlined
def reached(clock: float, limit: float) -> bool:
    """Whether a clock, a sum of dt, has reached its limit [s]."""
    return clock >= limit * (1.0 - CLOCK_TOLERANCE)


@inlined
def age(now: Any, agent: Any, settings: Any, share: float) -> None:
    """Residency: loading goes on while a share is held, long idleness unloads the model."""
    holds = share > 0.0
    idle = now.idle + settings.dt
    kept = agent.cold_start if reached(idle, settings.keep_alive_s) else now.loading
    now.share = share
    now.loading = max(0.0, now.loading - settings.dt) if holds else kept
    now.idle = 0.0 if holds else idle


@inlined
def price_step(sums: Sums, world: World, b: int) -> None:
    """Write the terms of a step and the reward that they make, and add them to the episode's totals."""
    settings, episode, value = world.settings[0], world.episode[b], world.worth[b]
    total, price, per_dt = episode.total, settings.price, settings.per_dt
    value.latency = sums.backlog * episode.per_weighted_rate
    value.cost = sums.held / settings.gpus
    value.throughput = sums.done * per_dt * episode.per_total_rate
    value.slo = sums.late * per_dt * episode.per_weighted_rate
    value.shortfall = sums.missing / sums.guaranteed if sums.missing > 0.0 else 0.0
    value.task = sums.tasks * episode.per_task_rate
    value.reward = -(
        price.latency * value.latency
        + price.cost * value.cost
        - price.throughput * value.throughput
        + price.slo * value.slo
        + price.shortfall * value.shortfall
        + price.task * value.task
    )
    total.latency += value.latency
    total.cost += value.cost
    total.throughput += value.throughput
    total.slo += value.slo
    total.shortfall += value.shortfall
    total.task += value.task
    total.reward += value.reward
    value.objective = (0.0 - total.reward) / (world.clock[b] + 1)


@inlined
def split_reward(world: World, outcome: AnyArray, b: int, own: int, sums: Sums) -> None:
    """Write each agent's part of the reward: what it adds to the sums that the terms are made of.

    Tasks are attributed to agents in proportion to the calls that they hold, and evenly while none holds any.
    """
    settings, episode, count = world.settings[0], world.episode[b], outcome.shape[1]
    price = settings.price
    backlog = price.latency * episode.per_weighted_rate
    late = price.slo * settings.per_dt * episode.per_weighted_rate
    held, done = price.cost / settings.gpus, price.throughput * settings.per_dt * episode.per_total_rate
    missing = price.shortfall / sums.guaranteed if sums.missing > 0.0 else 0.0
    tasks, calls = price.task * sums.tasks * episode.per_task_rate, 0.0
    if tasks != 0.0:
        for i in range(count):
            calls += outcome[b, i].backlog
    for i in range(count):
        agent, did = world.agents[own, i], outcome[b, i]
        promised = agent.min_share if world.state[b, i].queue > 0.0 else 0.0
        did.agent_reward = -(
            agent.weight * (backlog * did.backlog + late * did.late)
            + held * did.share
            - done * did.served
            + missing * max(0.0, promised - did.share)
            + (tasks * (did.backlog / calls if calls > 0.0 else 1.0 / count) if tasks != 0.0 else 0.0)
        )


@inlined
def begin(world: World, b: int, total_rate: float, weighted_rate: float, task_rate: float) -> None:
    """Start an episode whose agents are offered so many requests a second, and so many tasks."""
    episode = world.episode[b]
    world.clock[b] = 0
    episode.per_total_rate = 1.0 / total_rate if total_rate > 0.0 else 0.0
    episode.per_weighted_rate = 1.0 / weighted_rate if weighted_rate > 0.0 else 0.0
    episode.per_task_rate = 1.0 / task_rate if task_rate > 0.0 else 0.0
    total = episode.total
    total.latency = total.cost = total.throughput = total.slo = total.shortfall = total.task = 0.0
    total.reward = world.worth[b].objective = 0.0


@compiled
def check(first: int, last: int, requested: AnyArray, active: AnyArray, clock: AnyArray, steps: int) -> int:
    """OK, or why a range of environments must not be stepped: NOT_A_NUMBER, EPISODE_OVER.

    Args:
        first: the first environment of the range.
        last: the environment after the last of the range.
        requested: what is asked for, (B, A).
        active: environments to advance, (B,) bool.
        clock: steps taken in the running episodes, (B,).
        steps: T, after which an episode is over.
    """
    over = wrong = False
    for b in range(first, last):
        over |= active[b] and clock[b] >= steps
    if over:
        return EPISODE_OVER
    # All numbers in one row, several of which are compared in one vector instruction.
    numbers = requested[first:last].reshape((last - first) * requested.shape[1])
    for k in range(numbers.shape[0]):
        wrong |= numbers[k] != numbers[k]
    if wrong:
        for b in range(first, last):
            for i in range(requested.shape[1]):
                if active[b] and requested[b, i] != requested[b, i]:
                    return NOT_A_NUMBER
    return OK
