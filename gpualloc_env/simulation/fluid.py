"""The step of the fluid model: B environments of N agents, advanced by one compiled function.

Read `step` from top to bottom: it allocates, serves, ages the models, prices the step and lets the
next requests arrive, for one environment and one agent after the other. The columns of its records
are named, with their units, in `gpualloc_env.simulation.state`.
"""

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.arrivals import (
    WINDOWS,
    ArrivalScratch,
    Source,
    draw_agents,
    draw_arrivals,
    draw_rates,
    replay,
)
from gpualloc_env.simulation.curves import speedup
from gpualloc_env.simulation.observation import encode, encode_agent
from gpualloc_env.simulation.shares import (
    NEGLIGIBLE,
    OK,
    Sums,
    World,
    age,
    begin,
    charge,
    check,
    clip,
    grant,
    price_step,
    scale_to_fit,
    split_reward,
)
from gpualloc_env.simulation.state import OBSERVATION, OUTCOME, AnyArray


@inlined
def serve(queue: float, rate: float, delay: float, dt: float) -> tuple[float, float, float]:
    """Serve for what is left of `dt` seconds after a delay, first come first served.

    The number waiting is constant until service starts, falls at `rate` while there is work and
    is constant again: its integral over the time is exact.

    Returns:
        The requests that could be served, those that are, and the integral of the number waiting
        [requests s].
    """
    capacity = rate * (dt - delay)
    served = capacity if capacity < queue else queue
    busy = served / rate if rate > 0.0 else 0.0
    left = queue - served
    return capacity, served, queue * delay + (left + 0.5 * served) * busy + left * (dt - delay - busy)


@compiled
def step(
    first: int,
    last: int,
    requested: AnyArray,
    active: AnyArray,
    world: World,
    info: AnyArray,
    observation: AnyArray,
) -> int:
    """Advance the active environments of a range by one step and write what their policy sees next.

    Args:
        first: the first environment of the range.
        last: the environment after the last of the range.
        requested: fractions of the platform, (B, N).
        active: environments to advance, (B,) bool.
        world: what they live in.
        info: what the step does, (B, N, columns of OUTCOME); left as it is where nothing is advanced.
        observation: what the policy sees next, (B, N, columns of OBSERVATION) float32.

    Returns:
        OK, or the reason for which nothing at all was changed: NOT_A_NUMBER, EPISODE_OVER.
    """
    problem = check(first, last, requested, active, world.clock, world.arrivals.shape[0] - 1)
    if problem != OK:
        return problem
    settings, routing = world.settings[0], world.routing
    dt, per_dt, gpus = settings.dt, settings.per_dt, settings.gpus
    shape = requested.shape
    outcome, rows = info.view(OUTCOME).reshape(shape), observation.view(OBSERVATION).reshape(shape)
    for b in range(first, last):
        own = b if world.agents.shape[0] > 1 else 0
        t = world.clock[b]
        if not active[b]:
            for i in range(requested.shape[1]):
                encode(world.state[b, i], world.agents[own, i], settings, rows, b, i)
            continue
        # Allocate: what is asked for is scaled where it exceeds the platform.
        scale = scale_to_fit(requested[b])
        backlog = late = held = done = missing = guaranteed = 0.0
        for i in range(requested.shape[1]):
            agent, now, did = world.agents[own, i], world.state[b, i], outcome[b, i]
            share = grant(clip(requested[b, i]) * scale, gpus, settings.max_share, settings.slice)
            # Serve: a change of share and a model that loads delay service, they do not slow it.
            charge(now, did, agent, settings, share, t)
            delay = did.delay
            rate = agent.throughput * speedup(share, agent.kappa)
            capacity, served, integral = serve(now.queue, rate, delay, dt)
            # The requests of `slo_lag` steps ago reach their service objective in this step. What of
            # them has not left by then is late.
            cohort = world.inflows[t - agent.slo_lag, b, i] if t >= agent.slo_lag else 0.0
            left_by_then = min(rate * max(0.0, agent.slo - agent.slo_lag * dt - delay), served)
            now.recent -= cohort
            passed = min(now.queue - left_by_then - now.recent, cohort)
            did.arrivals = world.arrivals[t, b, i]
            did.queue = now.queue - served
            did.served = served
            did.capacity = capacity
            did.backlog = integral * per_dt
            did.late = passed if passed > NEGLIGIBLE else 0.0
            promised = agent.min_share if now.queue > 0.0 else 0.0
            age(now, agent, settings, share)
            backlog += agent.weight * did.backlog
            late += agent.weight * did.late
            held += share
            done += served
            guaranteed += promised
            missing += max(0.0, promised - share)
        # Record: the terms, and the reward that they make.
        sums = Sums(backlog, late, held, done, missing, guaranteed, 0.0)
        price_step(sums, world, b)
        split_reward(world, outcome, b, own, sums)
        if world.history.shape[1] > 0:
            for i in range(requested.shape[1]):
                world.history[b, t, i] = outcome[b, i]
        # Arrive: the next step's requests, from outside and from what other agents have finished.
        t += 1
        world.clock[b] = t
        for i in range(requested.shape[1]):
            now, did = world.state[b, i], outcome[b, i]
            inflow = world.arrivals[t, b, i]
            if routing.shape[0] > 0:
                for j in range(requested.shape[1]):
                    inflow += routing[j, i] * outcome[b, j].served
                world.inflows[t, b, i] = inflow
            now.inflow = inflow
            now.queue = did.queue + inflow
            # An exponential mean over the time observed so far: right from the first step on.
            now.rate += world.rate_gain[t] * (inflow * per_dt - now.rate)
            now.recent += inflow
            empty = did.queue <= NEGLIGIBLE
            now.oldest = t if empty else now.oldest
            now.oldest_left = inflow if empty else now.oldest_left - did.served
            while now.oldest_left <= NEGLIGIBLE and now.oldest < t:
                now.oldest += 1
                now.oldest_left += world.inflows[now.oldest, b, i]
            now.oldest_age = (t - now.oldest) * dt
            encode(now, world.agents[own, i], settings, rows, b, i)
    return OK


@compiled
def reset(
    first: int,
    last: int,
    mask: AnyArray,
    source: Source,
    nominal: AnyArray,
    world: World,
    scratch: ArrivalScratch,
    observation: AnyArray,
) -> None:
    """Draw a new episode, up to its first decision, for the environments of a range in `mask`, (B,) bool.

    `nominal` are the agents' parameters, (1, N) of AGENT, around which an episode's are drawn where
    the scenario says so; `scratch` is room for one episode. All else is as `step` describes it.
    """
    settings, rows = world.settings[0], observation.view(OBSERVATION)[:, :, 0]
    drawn = scratch.arrivals
    for b in range(first, last):
        own = b if world.agents.shape[0] > 1 else 0
        agents, state = world.agents[own], world.state[b]
        if mask[b]:
            if source.agent_spread > 0.0:
                draw_agents(world.generators[b, 0], source, nominal[0], agents)
                for i in range(agents.shape[0]):
                    encode_agent(agents[i], settings)
            if source.kind == WINDOWS:
                replay(source, world.windows[b], drawn, state)
            else:
                draw_rates(world.generators[b, 0], source, agents, state)
                draw_arrivals(world.generators[b], source, state, drawn, scratch.tables)
            # A step's row of the batch is far from the next one: it is visited once, for all agents.
            for t in range(drawn.shape[0]):
                for i in range(state.shape[0]):
                    world.arrivals[t, b, i] = drawn[t, i]
            world.windows[b] += 1
            total_rate = weighted_rate = 0.0
            for i in range(state.shape[0]):
                now, requests = state[i], world.arrivals[0, b, i]
                world.inflows[0, b, i] = requests
                now.queue = now.inflow = now.oldest_left = now.recent = requests
                now.rate = requests * settings.per_dt
                now.share = now.idle = now.oldest_age = 0.0
                now.oldest = 0
                now.loading = 0.0 if source.warm else agents[i].cold_start
                total_rate += now.mean_rate
                weighted_rate += agents[i].weight * now.mean_rate
            begin(world, b, total_rate, weighted_rate, 0.0)
        for i in range(state.shape[0]):
            encode(state[i], agents[i], settings, rows, b, i)
