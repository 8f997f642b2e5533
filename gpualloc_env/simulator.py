"""The only step: B environments of N agents, advanced by the same compiled function.

Each step arrives, allocates, serves, ages the models on the GPUs and records. The rows of the
packed arrays are named, with their units, in `gpualloc_env.state`.
"""

from math import isnan

from gpualloc_env import reward
from gpualloc_env.allocation import allocate
from gpualloc_env.compiled import compiled
from gpualloc_env.observation import encode, encode_parameters
from gpualloc_env.state import (
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
    OLDEST_TOTAL,
    OUTCOME_COLUMNS,
    PER_DT,
    PER_TOTAL_RATE,
    PER_WEIGHTED_RATE,
    QUEUE,
    QUEUE_END,
    RATE,
    RATE_DECAY,
    RATE_SUM,
    RATE_WEIGHT,
    REALLOCATED,
    REALLOCATION_S,
    REWARD,
    SERVED,
    SHARE,
    SHORTFALL,
    SLICE,
    SLO,
    SLO_LAG,
    SLO_S,
    SUMS,
    TERM_COLUMNS,
    THROUGHPUT,
    THROUGHPUT_TERM,
    WEIGHT,
    WEIGHTS,
    AnyArray,
)
from gpualloc_env.workload import (
    WINDOWS,
    Source,
    draw_agents,
    draw_arrivals,
    draw_rates,
    replay_arrivals,
    total_rates,
)

RATE_TIME_CONSTANT_S = 10.0
# Requests and shares are real numbers: less than this of one is rounding, not work or a change.
NEGLIGIBLE = 1e-9
# Clocks are sums of dt: a time this close to its limit has reached it.
CLOCK_TOLERANCE = 1e-9

OK, NOT_A_NUMBER, EPISODE_OVER = 0, 1, 2


@compiled
def _serve(queue: float, rate: float, delay: float, dt: float) -> tuple[float, float]:
    """Serve for what is left of the step after a delay, first come first served.

    The number waiting is constant until service starts, falls at `rate` while there is work and
    is constant again: its integral over the step is exact.

    Returns:
        The requests served, and the integral over the step of the number waiting.
    """
    served = min(queue, rate * (dt - delay))
    busy = served / rate if rate > 0.0 else 0.0
    left = queue - served
    return served, queue * delay + (left + 0.5 * served) * busy + left * (dt - delay - busy)


@compiled
def _late(
    queue: float,
    served: float,
    rate: float,
    delay: float,
    slo: float,
    lag: int,
    arrived: AnyArray,
    dt: float,
    b: int,
    i: int,
    t: int,
) -> float:
    """Requests of agent i that reach the age `slo` in this step while they wait.

    One step's requests reach it in every step: those of `lag` steps ago, slo − lag·dt seconds
    into this one. What of them has not left by then is late.
    """
    left = queue - min(served, rate * max(0.0, slo - lag * dt - delay))
    if left <= NEGLIGIBLE:
        return 0.0
    total = arrived[t - lag, b, i]
    cohort = total - arrived[t - lag - 1, b, i] if t > lag else total
    newer = arrived[t, b, i] - total
    late = min(cohort, left - newer)
    return late if late > NEGLIGIBLE else 0.0


@compiled
def _hold(
    state: AnyArray, cold_start_s: float, share: float, dt: float, keep_alive_s: float, b: int, i: int
) -> bool:
    """Age the model of agent i: loading while it holds a share, unloaded after long idleness.

    Returns:
        Whether its loading began in this step.
    """
    loading = state[b, i, LOADING]
    if share > 0.0:
        state[b, i, IDLE] = 0.0
        state[b, i, LOADING] = loading - dt if loading > dt else 0.0
        return loading > 0.0 and loading == cold_start_s
    idle = state[b, i, IDLE] + dt
    state[b, i, IDLE] = idle
    if idle >= keep_alive_s:
        state[b, i, LOADING] = cold_start_s
    return False


@compiled
def _act(
    outcome: AnyArray,
    terms: AnyArray,
    history: AnyArray,
    state: AnyArray,
    agents: AnyArray,
    episode: AnyArray,
    settings: AnyArray,
    arrivals: AnyArray,
    arrived: AnyArray,
    b: int,
    t: int,
) -> None:
    """Serve, age the models and price the step of one environment with the shares it has been granted."""
    own = b if agents.shape[0] > 1 else 0
    recorded = history.shape[1] > 0
    dt, per_dt, reallocation_s = settings[DT], settings[PER_DT], settings[REALLOCATION_S]
    free_change, keep_alive_s = settings[DEADBAND] + NEGLIGIBLE, settings[KEEP_ALIVE_S] - CLOCK_TOLERANCE
    weighted_backlog = held = served_in_all = weighted_late = missing = guaranteed = 0.0
    for i in range(state.shape[1]):
        share, queue, kappa = outcome[b, i, SHARE], state[b, i, QUEUE], agents[own, i, KAPPA]
        change = abs(share - state[b, i, HELD])
        charged = t > 0 and share > 0.0 and change > free_change
        delay = (reallocation_s if charged else 0.0) + state[b, i, LOADING]
        delay = dt if delay > dt else delay
        speedup = share if kappa == 0.0 else share * (1.0 + kappa) / (share + kappa)
        rate = agents[own, i, THROUGHPUT] * speedup
        served, waiting = _serve(queue, rate, delay, dt)
        backlog = waiting * per_dt
        lag, late = int(agents[own, i, SLO_LAG]), 0.0
        if t >= lag and state[b, i, OLDEST] <= t - lag:
            late = _late(queue, served, rate, delay, agents[own, i, SLO_S], lag, arrived, dt, b, i, t)
        started = _hold(state, agents[own, i, COLD_START_S], share, dt, keep_alive_s, b, i)

        outcome[b, i, ARRIVALS] = arrivals[t, b, i]
        outcome[b, i, QUEUE_END] = queue - served
        state[b, i, HELD] = share
        outcome[b, i, SERVED] = served
        outcome[b, i, CAPACITY] = rate * (dt - delay)
        outcome[b, i, BACKLOG] = backlog
        if recorded:
            for column in range(OUTCOME_COLUMNS):
                history[b, t, column, i] = outcome[b, i, column]
            history[b, t, DELAY, i] = delay
            history[b, t, LATE, i] = late
            history[b, t, REALLOCATED, i] = 1.0 if charged else 0.0
            history[b, t, COLD_START, i] = 1.0 if started else 0.0

        weight = agents[own, i, WEIGHT]
        weighted_backlog += weight * backlog
        weighted_late += weight * late
        held += share
        served_in_all += served
        if queue > 0.0:
            guaranteed += agents[own, i, MIN_SHARE]
            short = agents[own, i, MIN_SHARE] - share
            missing += short if short > 0.0 else 0.0

    per_weighted_rate = episode[b, PER_WEIGHTED_RATE]
    latency = reward.latency(weighted_backlog, per_weighted_rate)
    cost = reward.cost(held, settings[GPUS])
    throughput = reward.throughput(served_in_all, episode[b, PER_TOTAL_RATE], per_dt)
    slo = reward.slo(weighted_late, per_weighted_rate, per_dt)
    shortfall = reward.shortfall(missing, guaranteed)
    terms[b, LATENCY], terms[b, COST], terms[b, THROUGHPUT_TERM] = latency, cost, throughput
    terms[b, SLO], terms[b, SHORTFALL] = slo, shortfall
    terms[b, REWARD] = -(
        settings[WEIGHTS + LATENCY] * latency
        + settings[WEIGHTS + COST] * cost
        - settings[WEIGHTS + THROUGHPUT_TERM] * throughput
        + settings[WEIGHTS + SLO] * slo
        + settings[WEIGHTS + SHORTFALL] * shortfall
    )
    for row in range(TERM_COLUMNS):
        episode[b, SUMS + row] += terms[b, row]


@compiled
def _arrive(
    outcome: AnyArray,
    state: AnyArray,
    episode: AnyArray,
    settings: AnyArray,
    routing: AnyArray,
    arrivals: AnyArray,
    arrived: AnyArray,
    b: int,
    t: int,
) -> None:
    """Add the arrivals of step t, from outside and from what other agents finished in step t − 1."""
    dt = settings[DT]
    decay = settings[RATE_DECAY]
    gain = (1.0 - decay) * settings[PER_DT]
    episode[b, RATE_WEIGHT] = decay * episode[b, RATE_WEIGHT] + (1.0 - decay)
    normaliser = 1.0 / episode[b, RATE_WEIGHT]
    for i in range(state.shape[1]):
        inflow = arrivals[t, b, i]
        for j in range(routing.shape[0]):
            inflow += routing[j, i] * outcome[b, j, SERVED]
        queue = outcome[b, i, QUEUE_END] + inflow
        state[b, i, INFLOW] = inflow
        state[b, i, QUEUE] = queue
        # Dividing by the weights seen so far makes the mean unbiased from the first step on.
        state[b, i, RATE_SUM] = decay * state[b, i, RATE_SUM] + gain * inflow
        state[b, i, RATE] = state[b, i, RATE_SUM] * normaliser

        total = arrived[t - 1, b, i] + inflow if t > 0 else inflow
        arrived[t, b, i] = total
        oldest, oldest_total = int(state[b, i, OLDEST]), state[b, i, OLDEST_TOTAL]
        if queue - inflow <= NEGLIGIBLE:
            oldest, oldest_total = t, total
        departed = total - queue
        while oldest < t and oldest_total - departed <= NEGLIGIBLE:
            oldest += 1
            oldest_total = arrived[oldest, b, i]
        state[b, i, OLDEST] = oldest
        state[b, i, OLDEST_TOTAL] = oldest_total
        state[b, i, OLDEST_AGE] = (t - oldest) * dt


@compiled
def check(first: int, last: int, shares: AnyArray, active: AnyArray, clock: AnyArray, steps: int) -> int:
    """OK, or the reason for which a range must not be stepped: NOT_A_NUMBER, EPISODE_OVER."""
    for b in range(first, last):
        if not active[b]:
            continue
        if clock[b] >= steps:
            return EPISODE_OVER
        for i in range(shares.shape[1]):
            if isnan(shares[b, i]):
                return NOT_A_NUMBER
    return OK


@compiled
def step(
    first: int,
    last: int,
    shares: AnyArray,
    active: AnyArray,
    outcome: AnyArray,
    terms: AnyArray,
    observation: AnyArray,
    history: AnyArray,
    clock: AnyArray,
    state: AnyArray,
    agents: AnyArray,
    features: AnyArray,
    episode: AnyArray,
    settings: AnyArray,
    routing: AnyArray,
    arrivals: AnyArray,
    arrived: AnyArray,
    previous: AnyArray,
) -> int:
    """Advance the active environments of a range by one step and write what their policy sees next.

    Args:
        first: the first environment of the range.
        last: the environment after the last of the range.
        shares: requested fractions of the platform, (B, N).
        active: environments to advance, (B,) bool.
        outcome: room for what the step does, (B, N, OUTCOME_COLUMNS).
        terms: room for the reward and its terms, (B, TERM_COLUMNS); zero where nothing is advanced.
        observation: room for what the policy sees next, (B, N, F) float32.
        history: every step of the episode, (B, T, HISTORY_COLUMNS, N), or T = 0 to record none.
        clock: steps taken in the episode, (B,) int64.
        state: (B, N, STATE_COLUMNS).
        agents: (B, N, AGENT_COLUMNS), or (1, N, AGENT_COLUMNS) where all episodes have the same.
        features: the columns of the observation that last for the episode, rows as in `agents`.
        episode: (B, EPISODE_COLUMNS).
        settings: `SETTINGS` numbers.
        routing: W, (N, N): finished work of row j becomes arrivals of column i; (0, 0) for none.
        arrivals: external arrivals, (T + 1, B, N) [requests].
        arrived: cumulative arrivals, routed ones included, (T + 1, B, N) [requests].
        previous: the outcome of the step before, for the environments that are not active.

    Returns:
        OK, or the reason for which nothing at all was changed: NOT_A_NUMBER, EPISODE_OVER.
    """
    problem = check(first, last, shares, active, clock, arrivals.shape[0] - 1)
    if problem != OK:
        return problem
    for b in range(first, last):
        if active[b]:
            t = clock[b]
            granted = outcome[b, :, SHARE]
            allocate(shares[b], settings[GPUS], settings[MAX_SHARE], settings[SLICE], granted)
            _act(outcome, terms, history, state, agents, episode, settings, arrivals, arrived, b, t)
            clock[b] = t + 1
            _arrive(outcome, state, episode, settings, routing, arrivals, arrived, b, t + 1)
        else:
            for row in range(TERM_COLUMNS):
                terms[b, row] = 0.0
            for i in range(shares.shape[1]):
                for column in range(OUTCOME_COLUMNS):
                    outcome[b, i, column] = previous[b, i, column]
        own = b if agents.shape[0] > 1 else 0
        encode(state[b], agents[own], features[own], settings, observation[b])
    return OK


@compiled
def reset(
    first: int,
    last: int,
    mask: AnyArray,
    warm: bool,
    source: Source,
    generators: AnyArray,
    episodes: AnyArray,
    nominal: AnyArray,
    scratch: AnyArray,
    streams: AnyArray,
    outcome: AnyArray,
    observation: AnyArray,
    clock: AnyArray,
    state: AnyArray,
    agents: AnyArray,
    features: AnyArray,
    episode: AnyArray,
    settings: AnyArray,
    routing: AnyArray,
    arrivals: AnyArray,
    arrived: AnyArray,
) -> None:
    """Draw a new episode, up to its first decision, for the environments of a range in `mask`, (B,) bool.

    `generators`, (B, 4) uint64, and `episodes`, (B,) int64 [index of the next window of a log],
    are all that an environment carries over from one episode to the next. `nominal` are the
    agents' parameters, (N, AGENT_COLUMNS), around which an episode's are drawn where the
    scenario says so. `scratch` is room for SCRATCH numbers and at least N, `streams` for two
    generators, (2, 4) uint64.
    """
    count, columns = state.shape[1:]
    for b in range(first, last):
        own = b if agents.shape[0] > 1 else 0
        if not mask[b]:
            encode(state[b], agents[own], features[own], settings, observation[b])
            continue
        clock[b] = 0
        for i in range(count):
            for column in range(columns):
                state[b, i, column] = 0.0
            for column in range(OUTCOME_COLUMNS):
                outcome[b, i, column] = 0.0
        for row in range(episode.shape[1]):
            episode[b, row] = 0.0
        if source.agent_spread > 0.0:
            draw_agents(generators[b], source, nominal, agents[own])
            encode_parameters(agents[own], settings, features[own])
        mean_rate = state[b, :, MEAN_RATE]
        if source.kind == WINDOWS:
            replay_arrivals(source.replay, episodes[b], arrivals[:, b])
            external = state[b, :, RATE]
            steps = arrivals.shape[0] - 1
            for t in range(steps):
                for i in range(count):
                    external[i] += arrivals[t, b, i] / (steps * settings[DT])
            total_rates(source, external, mean_rate)
        else:
            rates = state[b, :, RATE]
            draw_rates(generators[b], source, agents[own, :, THROUGHPUT], rates, mean_rate, scratch[:count])
            draw_arrivals(generators[b], source, rates, arrivals[:, b], streams, scratch)
        episodes[b] += 1
        total_rate = weighted_rate = 0.0
        for i in range(count):
            state[b, i, LOADING] = 0.0 if warm else agents[own, i, COLD_START_S]
            total_rate += mean_rate[i]
            weighted_rate += agents[own, i, WEIGHT] * mean_rate[i]
        episode[b, PER_TOTAL_RATE] = 1.0 / total_rate if total_rate > 0.0 else 0.0
        episode[b, PER_WEIGHTED_RATE] = 1.0 / weighted_rate if weighted_rate > 0.0 else 0.0
        _arrive(outcome, state, episode, settings, routing, arrivals, arrived, b, 0)
        encode(state[b], agents[own], features[own], settings, observation[b])
