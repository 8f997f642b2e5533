"""The only step: B environments of N agents, advanced by the same compiled function.

Each step arrives, allocates, serves, ages the models on the GPUs and records. The rows of the
packed arrays are named, with their units, in `gpualloc_env.state`.
"""

from math import isnan

from gpualloc_env import reward
from gpualloc_env.allocation import allocate
from gpualloc_env.compiled import compiled
from gpualloc_env.observation import encode_constants, encode_state
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
    GRANTED,
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
    THROUGHPUT,
    THROUGHPUT_TERM,
    WEIGHT,
    WEIGHTS,
    AnyArray,
)
from gpualloc_env.workload import WINDOWS, Source, draw_arrivals, draw_rates, total_rates

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
) -> None:
    """Age the model of agent i: loading while it holds a share, unloaded after long idleness."""
    loading = state[b, i, LOADING]
    if share > 0.0:
        state[b, i, COLD_START] = 1.0 if loading > 0.0 and loading == cold_start_s else 0.0
        state[b, i, IDLE] = 0.0
        state[b, i, LOADING] = loading - dt if loading > dt else 0.0
    else:
        idle = state[b, i, IDLE] + dt
        state[b, i, COLD_START] = 0.0
        state[b, i, IDLE] = idle
        if idle >= keep_alive_s - CLOCK_TOLERANCE:
            state[b, i, LOADING] = cold_start_s


@compiled
def _act(
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
    dt, per_dt = settings[DT], settings[PER_DT]
    weighted_backlog = held = served_in_all = weighted_late = missing = guaranteed = 0.0
    for i in range(state.shape[1]):
        share, queue, kappa = state[b, i, GRANTED], state[b, i, QUEUE], agents[b, i, KAPPA]
        change = abs(share - state[b, i, SHARE])
        charged = t > 0 and share > 0.0 and change > settings[DEADBAND] + NEGLIGIBLE
        delay = (settings[REALLOCATION_S] if charged else 0.0) + state[b, i, LOADING]
        delay = dt if delay > dt else delay
        speedup = share if kappa == 0.0 else share * (1.0 + kappa) / (share + kappa)
        rate = agents[b, i, THROUGHPUT] * speedup
        served, waiting = _serve(queue, rate, delay, dt)
        backlog = waiting * per_dt
        lag, late = int(agents[b, i, SLO_LAG]), 0.0
        if t >= lag and state[b, i, OLDEST] <= t - lag:
            late = _late(queue, served, rate, delay, agents[b, i, SLO_S], lag, arrived, dt, b, i, t)
        _hold(state, agents[b, i, COLD_START_S], share, dt, settings[KEEP_ALIVE_S], b, i)

        state[b, i, ARRIVALS] = arrivals[t, b, i]
        state[b, i, QUEUE_END] = queue - served
        state[b, i, SHARE] = share
        state[b, i, SERVED] = served
        state[b, i, CAPACITY] = rate * (dt - delay)
        state[b, i, BACKLOG] = backlog
        state[b, i, DELAY] = delay
        state[b, i, LATE] = late
        state[b, i, REALLOCATED] = 1.0 if charged else 0.0

        weight = agents[b, i, WEIGHT]
        weighted_backlog += weight * backlog
        weighted_late += weight * late
        held += share
        served_in_all += served
        if queue > 0.0:
            guaranteed += agents[b, i, MIN_SHARE]
            short = agents[b, i, MIN_SHARE] - share
            missing += short if short > 0.0 else 0.0

    per_weighted_rate = episode[b, PER_WEIGHTED_RATE]
    episode[b, LATENCY] = reward.latency(weighted_backlog, per_weighted_rate)
    episode[b, COST] = reward.cost(held, settings[GPUS])
    episode[b, THROUGHPUT_TERM] = reward.throughput(served_in_all, episode[b, PER_TOTAL_RATE], per_dt)
    episode[b, SLO] = reward.slo(weighted_late, per_weighted_rate, per_dt)
    episode[b, SHORTFALL] = reward.shortfall(missing, guaranteed)
    episode[b, REWARD] = -(
        settings[WEIGHTS + LATENCY] * episode[b, LATENCY]
        + settings[WEIGHTS + COST] * episode[b, COST]
        - settings[WEIGHTS + THROUGHPUT_TERM] * episode[b, THROUGHPUT_TERM]
        + settings[WEIGHTS + SLO] * episode[b, SLO]
        + settings[WEIGHTS + SHORTFALL] * episode[b, SHORTFALL]
    )
    for row in range(REWARD + 1):
        episode[b, SUMS + row] += episode[b, row]


@compiled
def _arrive(
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
            inflow += routing[j, i] * state[b, j, SERVED]
        queue = state[b, i, QUEUE_END] + inflow
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
def step(
    shares: AnyArray,
    active: AnyArray,
    clock: AnyArray,
    state: AnyArray,
    agents: AnyArray,
    episode: AnyArray,
    settings: AnyArray,
    routing: AnyArray,
    arrivals: AnyArray,
    arrived: AnyArray,
    history: AnyArray,
    observation: AnyArray,
) -> int:
    """Advance every active environment by one step and write what its policy sees next.

    Args:
        shares: requested fractions of the platform, (B, N).
        active: environments to advance, (B,) bool.
        clock: steps taken in the episode, (B,) int64.
        state: (B, N, STATE_COLUMNS).
        agents: (B, N, AGENT_COLUMNS).
        episode: (B, EPISODE_COLUMNS).
        settings: `SETTINGS` numbers.
        routing: W, (N, N): finished work of row j becomes arrivals of column i; (0, 0) for none.
        arrivals: external arrivals, (T + 1, B or more, N) [requests].
        arrived: cumulative arrivals, routed ones included, (T + 1, B or more, N) [requests].
        history: the outcome rows of every step, (B, T, OUTCOME_COLUMNS, N), or T = 0 to record none.
        observation: (B, N, F) float32.

    Returns:
        OK, or the reason for which nothing at all was changed: NOT_A_NUMBER, EPISODE_OVER.
    """
    batch, count = shares.shape
    for b in range(batch):
        if not active[b]:
            continue
        if clock[b] + 1 >= arrivals.shape[0]:
            return EPISODE_OVER
        for i in range(count):
            if isnan(shares[b, i]):
                return NOT_A_NUMBER
    for b in range(batch):
        if not active[b]:
            continue
        t = clock[b]
        granted = state[b, :, GRANTED]
        allocate(shares[b], settings[GPUS], settings[MAX_SHARE], settings[SLICE], granted)
        _act(state, agents, episode, settings, arrivals, arrived, b, t)
        if history.shape[1] > 0:
            for row in range(OUTCOME_COLUMNS):
                for i in range(count):
                    history[b, t, row, i] = state[b, i, row]
        clock[b] = t + 1
        _arrive(state, episode, settings, routing, arrivals, arrived, b, t + 1)
        encode_state(state[b], agents[b], settings, observation[b])
    return OK


@compiled
def reset(
    mask: AnyArray,
    warm: bool,
    source: Source,
    generators: AnyArray,
    episodes: AnyArray,
    clock: AnyArray,
    state: AnyArray,
    agents: AnyArray,
    episode: AnyArray,
    settings: AnyArray,
    routing: AnyArray,
    arrivals: AnyArray,
    arrived: AnyArray,
    scratch: AnyArray,
    observation: AnyArray,
) -> None:
    """Draw a new episode for every environment in `mask`, (B,) bool, up to its first decision.

    `generators`, (B, 4) uint64, and `episodes`, (B,) int64 [index of the next window of a log],
    are all that an environment carries over from one episode to the next. `scratch` is room
    for (N, SCRATCH) numbers.
    """
    batch, count, rows = state.shape
    for b in range(batch):
        if not mask[b]:
            continue
        clock[b] = 0
        for i in range(count):
            for row in range(rows):
                state[b, i, row] = 0.0
        for row in range(episode.shape[1]):
            episode[b, row] = 0.0
        mean_rate = state[b, :, MEAN_RATE]
        if source.kind == WINDOWS:
            window = source.windows[episodes[b] % source.windows.shape[0]]
            external = state[b, :, RATE]
            for t in range(window.shape[0]):
                for i in range(count):
                    arrivals[t, b, i] = window[t, i]
                    if t + 1 < window.shape[0]:
                        external[i] += window[t, i] / ((window.shape[0] - 1) * settings[DT])
            total_rates(source, external, mean_rate)
        else:
            rates = state[b, :, RATE]
            draw_rates(generators[b], source, agents[b, :, THROUGHPUT], rates, mean_rate, scratch[:, 0])
            draw_arrivals(generators[b], source, rates, arrivals[:, b], scratch)
        episodes[b] += 1
        total_rate = weighted_rate = 0.0
        for i in range(count):
            state[b, i, LOADING] = 0.0 if warm else agents[b, i, COLD_START_S]
            total_rate += mean_rate[i]
            weighted_rate += agents[b, i, WEIGHT] * mean_rate[i]
        episode[b, PER_TOTAL_RATE] = 1.0 / total_rate if total_rate > 0.0 else 0.0
        episode[b, PER_WEIGHTED_RATE] = 1.0 / weighted_rate if weighted_rate > 0.0 else 0.0
        _arrive(state, episode, settings, routing, arrivals, arrived, b, 0)
        encode_constants(agents[b], settings, observation[b])
        encode_state(state[b], agents[b], settings, observation[b])
