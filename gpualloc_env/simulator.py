"""The only step: B environments of N agents, advanced by the same compiled function.

Each step arrives, allocates, serves, ages the models on the GPUs and records. The columns of the
packed arrays are named, with their units, in `gpualloc_env.state`; what happens to each of their
lanes stands in `gpualloc_env.lanes`.
"""

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.lanes import (
    LANES,
    WORKSPACE,
    act,
    add_up,
    arrive,
    encode,
    fit_platform,
    load_agents,
    look_back,
    price,
    record,
    stay,
)
from gpualloc_env.observation import encode_parameters, encode_state, put_parameters
from gpualloc_env.state import (
    COLD_START_S,
    DT,
    HELD,
    IDLE,
    INFLOW,
    LOADING,
    MEAN_RATE,
    OLDEST,
    OLDEST_LEFT,
    OUTCOME_COLUMNS,
    PER_DT,
    PER_TOTAL_RATE,
    PER_WEIGHTED_RATE,
    QUEUE,
    RATE,
    RECENT,
    THROUGHPUT,
    WEIGHT,
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
OK, NOT_A_NUMBER, EPISODE_OVER = 0, 1, 2


@inlined
def _show(
    state: AnyArray, agents: AnyArray, features: AnyArray, settings: AnyArray, observation: AnyArray, b: int
) -> None:
    """Write the observation of one environment."""
    count, own = agents.shape[1], b if agents.shape[0] > 1 else 0
    for i in range(count):
        k = b * count + i
        encode_state(state[:, k], agents[own, i], settings, observation[k])
        put_parameters(features[own, i], observation[k])


@inlined
def _alike(b: int, last: int, most: int, clock: AnyArray, active: AnyArray) -> int:
    """How many environments from b on, `most` of them at the most, are at the same step and active or not."""
    envs = 1
    while envs < most and b + envs < last and clock[b + envs] == clock[b] and active[b + envs] == active[b]:
        envs += 1
    return envs


@compiled
def check(first: int, last: int, shares: AnyArray, active: AnyArray, clock: AnyArray, steps: int) -> int:
    """OK, or the reason for which a range must not be stepped: NOT_A_NUMBER, EPISODE_OVER."""
    over = wrong = 0
    for b in range(first, last):
        over += 1 if active[b] & (clock[b] >= steps) else 0
        bad = 0
        for i in range(shares.shape[1]):
            bad += 1 if shares[b, i] != shares[b, i] else 0
        wrong += bad if active[b] else 0
    if over > 0:
        return EPISODE_OVER
    return NOT_A_NUMBER if wrong > 0 else OK


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
    workspace: AnyArray,
    rate_gains: AnyArray,
    routing: AnyArray,
    clock: AnyArray,
    state: AnyArray,
    agents: AnyArray,
    features: AnyArray,
    episode: AnyArray,
    settings: AnyArray,
    arrivals: AnyArray,
    inflows: AnyArray,
) -> int:
    """Advance the active environments of a range by one step and write what their policy sees next.

    Args:
        first: the first environment of the range.
        last: the environment after the last of the range.
        shares: requested fractions of the platform, (B, N).
        active: environments to advance, (B,) bool.
        outcome: room for what the step does, (OUTCOME_COLUMNS, B · N); left as it is where no step is taken.
        terms: room for the reward and its terms, (B, TERM_COLUMNS), likewise.
        observation: room for what the policy sees next, (B · N, F) float32.
        history: every step of the episode, (B, T, HISTORY_COLUMNS, N), or T = 0 to record none.
        workspace: the bytes of one WORKSPACE; a call takes half a microsecond more to know a record.
        rate_gains: weight of a step's rate in the smoothed one, (T + 1,).
        routing: W, (N, N): finished work of row j becomes arrivals of column i; (0, 0) for none.
        clock: steps taken in the episode, (B,) int64.
        state: (STATE_COLUMNS, B · N).
        agents: (B, N, AGENT_COLUMNS), or (1, N, AGENT_COLUMNS) where all episodes have the same.
        features: the columns of the observation that last for the episode, rows as in `agents`.
        episode: (B, EPISODE_COLUMNS).
        settings: `SETTINGS` numbers.
        arrivals: external arrivals, (T + 1, at least B · N) [requests].
        inflows: what came in each step, routed requests included, shaped as `arrivals`; the same array
            where nothing is routed.

    Returns:
        OK, or the reason for which nothing at all was changed: NOT_A_NUMBER, EPISODE_OVER.
    """
    problem = check(first, last, shares, active, clock, arrivals.shape[0] - 1)
    if problem != OK:
        return problem
    work, asked = workspace.view(WORKSPACE)[0], shares.reshape(-1)
    count = shares.shape[1]
    part = min(count, LANES)
    most = LANES // part
    loaded = False
    b = first
    while b < last:
        t, envs = int(clock[b]), _alike(b, last, most, clock, active)
        if not active[b]:
            for e in range(envs):
                _show(state, agents, features, settings, observation, b + e)
            b += envs
            continue
        fit_platform(work, shares, b, envs, part)
        for i in range(0, count, part):
            here = min(part, count - i)
            lanes, start = envs * here, b * count + i
            end = start + lanes
            if not (loaded and stay(agents)):
                load_agents(work, agents, b, min(most, last - b), i, here)
                loaded = True
            look_back(work, inflows, state[OLDEST, start:end], start, t, lanes)
            act(
                work,
                asked[start:end],
                arrivals[t, start:end],
                state[QUEUE, start:end],
                state[HELD, start:end],
                state[IDLE, start:end],
                state[LOADING, start:end],
                state[RECENT, start:end],
                settings,
                t,
                lanes,
            )
            add_up(work, envs, here, i == 0)
            for column in range(OUTCOME_COLUMNS):
                plane = outcome[column, start:end]
                for k in range(lanes):
                    plane[k] = work.outcome[column, k]
            for column in range(HELD, LOADING + 1):
                plane = state[column, start:end]
                for k in range(lanes):
                    plane[k] = work.state[column, k]
            if history.shape[1] > 0:
                record(work, history, b, envs, i, here, t)
        price(work, terms, episode, settings, b, envs)
        t += 1
        for e in range(envs):
            clock[b + e] = t
        for i in range(0, count, part):
            here = min(part, count - i)
            if part < count:
                load_agents(work, agents, b, envs, i, here)
            arrive(
                work,
                outcome,
                state,
                routing,
                arrivals,
                inflows,
                rate_gains[t],
                settings,
                b,
                envs,
                i,
                here,
                count,
                t,
            )
            encode(work, state, features, settings, observation, b, envs, i, here, count)
        b += envs
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
    arrivals: AnyArray,
    inflows: AnyArray,
) -> None:
    """Draw a new episode, up to its first decision, for the environments of a range in `mask`, (B,) bool.

    `generators`, (B, 4) uint64, and `episodes`, (B,) int64 [index of the next window of a log],
    are all that an environment carries over from one episode to the next. `nominal` are the
    agents' parameters, (N, AGENT_COLUMNS), around which an episode's are drawn where the
    scenario says so. `scratch` is room for SCRATCH numbers and at least N, `streams` for two
    generators, (2, 4) uint64. All else is as `step` describes it.
    """
    count = nominal.shape[0]
    for b in range(first, last):
        own = b if agents.shape[0] > 1 else 0
        start, end = b * count, (b + 1) * count
        if mask[b]:
            clock[b] = 0
            for column in range(state.shape[0]):
                for k in range(start, end):
                    state[column, k] = 0.0
            for column in range(OUTCOME_COLUMNS):
                for k in range(start, end):
                    outcome[column, k] = 0.0
            for row in range(episode.shape[1]):
                episode[b, row] = 0.0
            if source.agent_spread > 0.0:
                draw_agents(generators[b], source, nominal, agents[own])
                encode_parameters(agents[own], settings, features[own])
            mean_rate, external = state[MEAN_RATE, start:end], state[RATE, start:end]
            if source.kind == WINDOWS:
                replay_arrivals(source.replay, episodes[b], arrivals[:, start:end])
                steps = arrivals.shape[0] - 1
                for t in range(steps):
                    for i in range(count):
                        external[i] += arrivals[t, start + i] / (steps * settings[DT])
                total_rates(source, external, mean_rate)
            else:
                throughput = agents[own, :, THROUGHPUT]
                draw_rates(generators[b], source, throughput, external, mean_rate, scratch[:count])
                draw_arrivals(generators[b], source, external, arrivals[:, start:end], streams, scratch)
            episodes[b] += 1
            total_rate = weighted_rate = 0.0
            for i in range(count):
                requests = arrivals[0, start + i]
                inflows[0, start + i] = requests
                for column in (QUEUE, INFLOW, OLDEST_LEFT, RECENT):
                    state[column, start + i] = requests
                external[i] = requests * settings[PER_DT]
                state[LOADING, start + i] = 0.0 if warm else agents[own, i, COLD_START_S]
                total_rate += mean_rate[i]
                weighted_rate += agents[own, i, WEIGHT] * mean_rate[i]
            episode[b, PER_TOTAL_RATE] = 1.0 / total_rate if total_rate > 0.0 else 0.0
            episode[b, PER_WEIGHTED_RATE] = 1.0 / weighted_rate if weighted_rate > 0.0 else 0.0
    for b in range(first, last):
        _show(state, agents, features, settings, observation, b)
