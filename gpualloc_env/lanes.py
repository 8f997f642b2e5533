"""What a step does to the lanes of a batch, one for each agent of each environment.

The lanes are worked on in parts of at most LANES. What happens to each lane by itself is a loop
that compiles to vector instructions, which needs two things: no branches, and results that go to
the rows of one `Workspace`, whose distances the compiler knows. What is rare, or goes through an
agent's past, is a loop of its own over the few lanes that need it.
"""

from typing import Any

import numpy as np

from gpualloc_env import reward
from gpualloc_env.allocation import clip, grant, scale
from gpualloc_env.compiled import inlined
from gpualloc_env.curves import speedup
from gpualloc_env.observation import STATE_FEATURES, put_parameters, state_features
from gpualloc_env.prefetch import prefetch
from gpualloc_env.service import serve
from gpualloc_env.state import (
    AGENT_COLUMNS,
    ARRIVALS,
    BACKLOG,
    CAPACITY,
    COLD_START,
    COLD_START_S,
    COST,
    DEADBAND,
    DELAY,
    DT,
    GPUS,
    HELD,
    HISTORY_COLUMNS,
    IDLE,
    INFLOW,
    KAPPA,
    KEEP_ALIVE_S,
    LATE,
    LATENCY,
    LOADING,
    MAX_SHARE,
    MEAN_RATE,
    MIN_SHARE,
    OLDEST,
    OLDEST_AGE,
    OLDEST_LEFT,
    PER_DT,
    PER_TOTAL_RATE,
    PER_WEIGHTED_RATE,
    QUEUE,
    QUEUE_END,
    RATE,
    REALLOCATED,
    REALLOCATION_S,
    RECENT,
    REWARD,
    SERVED,
    SHARE,
    SHORTFALL,
    SLICE,
    SLO,
    SLO_LAG,
    SLO_S,
    STATE_COLUMNS,
    SUMS,
    TERM_COLUMNS,
    THROUGHPUT,
    THROUGHPUT_TERM,
    WEIGHT,
    WEIGHTS,
    AnyArray,
)

# Requests and shares are real numbers: less than this of one is rounding, not work or a change.
NEGLIGIBLE = 1e-9
# Clocks are sums of dt: a time this close to its limit has reached it.
CLOCK_TOLERANCE = 1e-9

LANES = 128
_LANE_ROWS = ("scale", "rate", "cohort", "missing", "guaranteed", "behind")
_ENVIRONMENT_ROWS = (
    "weighted_backlog",
    "weighted_late",
    "held",
    "done",
    "short",
    "promised",
    "asked",
    "factor",
)
WORKSPACE = np.dtype(
    [
        ("agents", np.float64, (AGENT_COLUMNS, LANES)),
        ("state", np.float64, (STATE_COLUMNS, LANES)),
        ("outcome", np.float64, (HISTORY_COLUMNS, LANES)),
        *((row, np.float64, (LANES,)) for row in (*_LANE_ROWS, *_ENVIRONMENT_ROWS)),
        ("chosen", np.int64, (LANES,)),
        ("seen", np.float32, (STATE_FEATURES, LANES)),
    ]
)
"""Rows of numbers of the lanes, or of the environments, of the part that is being worked on."""
Workspace = Any  # a record of WORKSPACE; no type of NumPy's names the rows of one


@inlined
def _hold(
    share: float, idle: float, loading: float, cold_start_s: float, dt: float, keep_alive_s: float
) -> tuple[float, float]:
    """Age the model of an agent: loading while it holds a share, unloaded after long idleness.

    Returns:
        How long it is idle, and the time still needed to load it.
    """
    longer = idle + dt
    loaded = loading - dt if loading > dt else 0.0
    kept = cold_start_s if longer >= keep_alive_s else loading
    return (0.0, loaded) if share > 0.0 else (longer, kept)


@inlined
def load_agents(work: Workspace, agents: AnyArray, b: int, envs: int, i: int, count: int) -> None:
    """Put the parameters of agents i to i + count of some environments into their lanes."""
    k = 0
    for e in range(envs):
        own = b + e if agents.shape[0] > 1 else 0
        for agent in range(i, i + count):
            for column in range(AGENT_COLUMNS):
                work.agents[column, k] = agents[own, agent, column]
            k += 1


@inlined
def stay(agents: AnyArray) -> bool:
    """Whether one set of parameters serves all parts, so that it is loaded but once."""
    return agents.shape[0] == 1 and agents.shape[1] <= LANES


@inlined
def fit_platform(work: Workspace, shares: AnyArray, b: int, envs: int, part: int) -> None:
    """The factor at which what each environment asks for fits the platform, for each lane of a part."""
    for e in range(envs):
        work.asked[e] = 0.0
    # Agent by agent: a loop over a few agents of one environment would be all beginning and end.
    for i in range(shares.shape[1]):
        for e in range(envs):
            work.asked[e] += clip(shares[b + e, i])
    for e in range(envs):
        work.factor[e] = scale(work.asked[e])
    for i in range(part):
        for e in range(envs):
            work.scale[e * part + i] = work.factor[e]


@inlined
def act(
    work: Workspace,
    asked: AnyArray,
    arrivals: AnyArray,
    queue: AnyArray,
    held: AnyArray,
    idle: AnyArray,
    loading: AnyArray,
    recent: AnyArray,
    settings: AnyArray,
    t: int,
    lanes: int,
) -> None:
    """Grant shares, serve and age the models: what a step does to each lane by itself."""
    agents, state, outcome = work.agents, work.state, work.outcome
    gpus, max_share, slice_ = settings[GPUS], settings[MAX_SHARE], settings[SLICE]
    dt, per_dt, reallocation_s = settings[DT], settings[PER_DT], settings[REALLOCATION_S]
    free_change, keep_alive_s = settings[DEADBAND] + NEGLIGIBLE, settings[KEEP_ALIVE_S] - CLOCK_TOLERANCE
    held_before = t > 0
    for k in range(lanes):
        outcome[ARRIVALS, k] = arrivals[k]
        outcome[SHARE, k] = grant(clip(asked[k]) * work.scale[k], gpus, max_share, slice_)
    for k in range(lanes):
        share, waiting = outcome[SHARE, k], queue[k]
        charged = held_before & (share > 0.0) & (abs(share - held[k]) > free_change)
        delay = (reallocation_s if charged else 0.0) + loading[k]
        delay = dt if delay > dt else delay
        rate = agents[THROUGHPUT, k] * speedup(share, agents[KAPPA, k])
        capacity, served, integral = serve(waiting, rate, delay, dt)
        work.rate[k] = rate
        outcome[REALLOCATED, k] = 1.0 if charged else 0.0
        outcome[DELAY, k] = delay
        outcome[CAPACITY, k] = capacity
        outcome[SERVED, k] = served
        outcome[QUEUE_END, k] = waiting - served
        outcome[BACKLOG, k] = integral * per_dt
        least = agents[MIN_SHARE, k] if waiting > 0.0 else 0.0
        work.guaranteed[k] = least
        work.missing[k] = least - share if share < least else 0.0
    for k in range(lanes):
        share, cold = outcome[SHARE, k], agents[COLD_START_S, k]
        started = (share > 0.0) & (loading[k] > 0.0) & (loading[k] == cold)
        outcome[COLD_START, k] = 1.0 if started else 0.0
        state[HELD, k] = share
        state[IDLE, k], state[LOADING, k] = _hold(share, idle[k], loading[k], cold, dt, keep_alive_s)
    for k in range(lanes):
        # One step's requests, those of `lag` steps ago, reach the age of their service objective in
        # this step, slo − lag·dt seconds into it. What of them has not left by then is late.
        serving = agents[SLO_S, k] - agents[SLO_LAG, k] * dt - outcome[DELAY, k]
        by_then = work.rate[k] * (serving if serving > 0.0 else 0.0)
        waiting = queue[k] - (by_then if by_then < outcome[SERVED, k] else outcome[SERVED, k])
        newer = recent[k] - work.cohort[k]
        late = waiting - newer if waiting - newer < work.cohort[k] else work.cohort[k]
        outcome[LATE, k] = late if late > NEGLIGIBLE else 0.0
        recent[k] = newer


@inlined
def look_back(work: Workspace, inflows: AnyArray, oldest: AnyArray, start: int, t: int, lanes: int) -> None:
    """The requests that came `lag` steps ago. `oldest` is the step of the oldest that wait, (lanes,)."""
    for k in range(lanes):
        lag = int(work.agents[SLO_LAG, k])
        work.cohort[k] = inflows[t - lag, start + k] if t >= lag else 0.0
        # Where the search for the oldest request will begin, if it must: most likely in no cache.
        prefetch(inflows, int(oldest[k]) + 1, start + k)  # pyright: ignore


@inlined
def _catch_up(work: Workspace, inflows: AnyArray, start: int, t: int, lanes: int) -> None:
    """Find the step in which the oldest waiting request arrived, for the lanes that are `behind`.

    They are listed first and look one step further at a time, all of them: asking lane by lane
    costs more, because what comes next cannot be predicted.
    """
    state = work.state
    count = 0
    for k in range(lanes):
        work.chosen[count] = k
        count += 1 if work.behind[k] > 0.0 else 0
    while count > 0:
        still = 0
        for j in range(count):
            k = work.chosen[j]
            step = int(state[OLDEST, k]) + 1
            left = state[OLDEST_LEFT, k] + inflows[step, start + k]
            state[OLDEST, k], state[OLDEST_LEFT, k] = float(step), left
            work.chosen[still] = k
            still += 1 if (step < t) & (left <= NEGLIGIBLE) else 0
        count = still


@inlined
def add_up(work: Workspace, envs: int, count: int, first: bool) -> None:
    """Sum over the agents of each environment; the sums go on over the parts of a large one."""
    outcome, weight = work.outcome, work.agents[WEIGHT]
    k = 0
    for e in range(envs):
        backlog = late = held = served = missing = guaranteed = 0.0
        if not first:
            backlog, late, held = work.weighted_backlog[e], work.weighted_late[e], work.held[e]
            served, missing, guaranteed = work.done[e], work.short[e], work.promised[e]
        for _ in range(count):
            backlog += weight[k] * outcome[BACKLOG, k]
            late += weight[k] * outcome[LATE, k]
            held += outcome[SHARE, k]
            served += outcome[SERVED, k]
            missing += work.missing[k]
            guaranteed += work.guaranteed[k]
            k += 1
        work.weighted_backlog[e], work.weighted_late[e], work.held[e] = backlog, late, held
        work.done[e], work.short[e], work.promised[e] = served, missing, guaranteed


@inlined
def price(work: Workspace, terms: AnyArray, episode: AnyArray, settings: AnyArray, b: int, envs: int) -> None:
    """The terms of each environment's objective, and its reward."""
    gpus, per_dt = settings[GPUS], settings[PER_DT]
    for e in range(envs):
        per_weighted_rate, per_total_rate = episode[b + e, PER_WEIGHTED_RATE], episode[b + e, PER_TOTAL_RATE]
        latency = reward.latency(work.weighted_backlog[e], per_weighted_rate)
        cost = reward.cost(work.held[e], gpus)
        throughput = reward.throughput(work.done[e], per_total_rate, per_dt)
        slo = reward.slo(work.weighted_late[e], per_weighted_rate, per_dt)
        shortfall = reward.shortfall(work.short[e], work.promised[e])
        row, sums = terms[b + e], episode[b + e, SUMS:]
        row[LATENCY], row[COST], row[THROUGHPUT_TERM] = latency, cost, throughput
        row[SLO], row[SHORTFALL] = slo, shortfall
        row[REWARD] = -(
            settings[WEIGHTS + LATENCY] * latency
            + settings[WEIGHTS + COST] * cost
            - settings[WEIGHTS + THROUGHPUT_TERM] * throughput
            + settings[WEIGHTS + SLO] * slo
            + settings[WEIGHTS + SHORTFALL] * shortfall
        )
        for term in range(TERM_COLUMNS):
            sums[term] += row[term]


@inlined
def record(work: Workspace, history: AnyArray, b: int, envs: int, i: int, count: int, t: int) -> None:
    """Keep the step for the metrics of the episode."""
    for column in range(HISTORY_COLUMNS):
        for e in range(envs):
            for agent in range(count):
                history[b + e, t, column, i + agent] = work.outcome[column, e * count + agent]


@inlined
def arrive(
    work: Workspace,
    outcome: AnyArray,
    state: AnyArray,
    routing: AnyArray,
    arrivals: AnyArray,
    inflows: AnyArray,
    rate_gain: float,
    settings: AnyArray,
    b: int,
    envs: int,
    i: int,
    count: int,
    agents: int,
    t: int,
) -> None:
    """Add the arrivals of step t, from outside and from what other agents finished in step t − 1."""
    start, lanes = b * agents + i, envs * count
    end = start + lanes
    dt, per_dt = settings[DT], settings[PER_DT]
    here, external = work.state, arrivals[t, start:end]
    for k in range(lanes):
        here[INFLOW, k] = external[k]
    if routing.shape[0] > 0:
        for e in range(envs):
            for agent in range(count):
                for j in range(agents):
                    finished = outcome[SERVED, (b + e) * agents + j]
                    here[INFLOW, e * count + agent] += routing[j, i + agent] * finished
        total = inflows[t, start:end]
        for k in range(lanes):
            total[k] = here[INFLOW, k]
    left, served, rate = outcome[QUEUE_END, start:end], outcome[SERVED, start:end], state[RATE, start:end]
    oldest, oldest_left, recent = (
        state[OLDEST, start:end],
        state[OLDEST_LEFT, start:end],
        state[RECENT, start:end],
    )
    for k in range(lanes):
        inflow = here[INFLOW, k]
        here[QUEUE, k] = left[k] + inflow
        # An exponential mean over the time seen so far: right from the first step on.
        here[RATE, k] = rate[k] + rate_gain * (inflow * per_dt - rate[k])
        here[RECENT, k] = recent[k] + inflow
        empty = left[k] <= NEGLIGIBLE
        still = oldest_left[k] - served[k]
        here[OLDEST, k] = float(t) if empty else oldest[k]
        here[OLDEST_LEFT, k] = inflow if empty else still
        work.behind[k] = 1.0 if (still <= NEGLIGIBLE) & (oldest[k] < t) & (not empty) else 0.0
    _catch_up(work, inflows, start, t, lanes)
    for k in range(lanes):
        here[OLDEST_AGE, k] = (t - here[OLDEST, k]) * dt
    for column in range(STATE_COLUMNS):
        if (column < HELD or column > LOADING) and column != MEAN_RATE:
            plane = state[column, start:end]
            for k in range(lanes):
                plane[k] = here[column, k]


@inlined
def encode(
    work: Workspace,
    state: AnyArray,
    features: AnyArray,
    settings: AnyArray,
    observation: AnyArray,
    b: int,
    envs: int,
    i: int,
    count: int,
    agents: int,
) -> None:
    """Write the observations of some environments: their state and, as they are, their parameters."""
    here, start, lanes = work.state, b * agents + i, envs * count
    end = start + lanes
    dt, per_gpu = settings[DT], 1.0 / settings[GPUS]
    per_keep_alive = 1.0 / max(settings[KEEP_ALIVE_S], dt)
    held, idle, loading = state[HELD, start:end], state[IDLE, start:end], state[LOADING, start:end]
    for k in range(lanes):
        seen = state_features(
            here[QUEUE, k],
            here[INFLOW, k],
            here[RATE, k],
            held[k],
            idle[k],
            loading[k],
            here[OLDEST_AGE, k],
            work.agents[THROUGHPUT, k],
            work.agents[SLO_S, k],
            per_gpu,
            per_keep_alive,
            dt,
        )
        work.seen[0, k], work.seen[1, k], work.seen[2, k], work.seen[3, k] = (
            seen[0],
            seen[1],
            seen[2],
            seen[3],
        )
        work.seen[4, k], work.seen[5, k], work.seen[6, k] = seen[4], seen[5], seen[6]
    k = 0
    for e in range(envs):
        own = b + e if features.shape[0] > 1 else 0
        for agent in range(i, i + count):
            row = observation[start + k]
            for column in range(STATE_FEATURES):
                row[column] = work.seen[column, k]
            put_parameters(features[own, agent], row)
            k += 1
