"""The step of a cluster: which model stands on which GPU, and which of its instances serves which call.

Read `step` from top to bottom: memory and shares of all GPUs, calls that return to their agents, dispatch of
those that wait there, the events of the step, which `gpualloc_env.simulation.servers` has, and aging. What an
instance is stands in `gpualloc_env.simulation.residency`. The columns of the records mean what they mean in
`gpualloc_env.simulation.requests`; where an agent has several instances they are sums over these.
"""

from math import inf
from typing import Any

from gpualloc_env.compiled import called, compiled, inlined
from gpualloc_env.simulation.calls import NONE, Service
from gpualloc_env.simulation.curves import speedup
from gpualloc_env.simulation.placement import Shown, show_cluster
from gpualloc_env.simulation.residency import (
    Cluster,
    Place,
    age_instances,
    copy_of,
    exceeds,
    host_memory_taken,
    settle,
    settle_at_reset,
    wake_time,
)
from gpualloc_env.simulation.servers import (
    enter,
    finish_step,
    next_event,
    observe_agent,
    open_step,
    play,
    postpone,
    record_agent,
    register,
    work_until,
)
from gpualloc_env.simulation.shares import (
    CLOCK_TOLERANCE,
    OK,
    World,
    charge,
    check,
    clip,
    grant,
    scale_to_fit,
)
from gpualloc_env.simulation.state import OUTCOME, AnyArray


@inlined
def place_of(service: Service, cluster: Cluster, agents: AnyArray, b: int, start: float, end: float) -> Place:
    """Environment b, whose agents are (N,) of AGENT, in a step between two times [s]."""
    return Place(
        service.run[b : b + 1],
        service.tasks[b],
        service.calls[b],
        service.ledgers[b],
        service.servers[b],
        service.event[b],
        service.soonest[b],
        service.running[b],
        service.pending[b],
        agents,
        end,
        start,
        cluster.gpus,
        cluster.rules,
        cluster.instances[b],
        cluster.hosts[b],
        cluster.memory[b],
        cluster.counts[b : b + 1],
    )


@called
def choose(place: Place, i: int, time: float) -> int:
    """The GPU whose instance of agent i takes a call, or NONE where none has a share.

    Those that have nothing left to load come first, then those with the least calls for their speed.
    """
    gpus, best, best_loaded, least = place.gpus.shape[0], NONE, False, inf
    for k in range(gpus):
        instance, server = place.instances[i * gpus + k], place.servers[i * gpus + k]
        if instance.share > 0.0:
            loaded = instance.loading <= time - place.start + CLOCK_TOLERANCE
            calls = server.waiting + server.running + server.coming + (1 if server.in_prefill != NONE else 0)
            load = (calls + 1) / (instance.share * place.gpus[k].speed)
            if best == NONE or (loaded and not best_loaded) or (loaded == best_loaded and load < least):
                best, best_loaded, least = k, loaded, load
    return best


@inlined
def is_far(place: Place, c: int, k: int) -> bool:
    """Whether a call has a stage before it in its task, none of whose calls finished on GPU k's node."""
    call = place.calls[c]
    first, before = place.tasks[call.task].first, c - 1
    while before >= first and place.calls[before].stage == call.stage:
        before -= 1
    if before < first:
        return False
    stage = place.calls[before].stage
    while before >= first and place.calls[before].stage == stage:
        if place.gpus[place.calls[before].at].node == place.gpus[k].node:
            return False
        before -= 1
    return True


@called
def dispatch(place: Place, c: int, time: float) -> None:
    """Send a call to an instance of its agent, or let it wait at the agent where none has a share."""
    call, counts = place.calls[c], place.counts[0]
    k = choose(place, int(call.agent), time)
    call.at = k
    if k == NONE:
        place.ledgers[call.agent].held += 1
        return
    s = call.agent * place.gpus.shape[0] + k
    counts.dispatched += 1.0
    if place.instances[s].loading <= time - place.start + CLOCK_TOLERANCE:
        counts.hot_calls += 1.0
    else:
        counts.woken_calls += place.instances[s].woken
    if is_far(place, c, k):
        counts.hops += 1.0
        hop = place.rules[0].hop_s + place.rules[0].hop_s_per_token * call.prompt
        if hop > 0.0:
            place.servers[s].coming += 1
            postpone(place, c, time + hop)
            return
    enter(place, s, c, time)


@inlined
def begin(place: Place, c: int, time: float) -> None:
    """Issue a call that is due, or let it arrive on its node."""
    call = place.calls[c]
    if call.issued == inf:
        register(place, c, time)
    else:
        s = call.agent * place.gpus.shape[0] + call.at
        place.servers[s].coming -= 1
        if place.instances[s].share > 0.0:
            enter(place, s, c, time)
            return
    dispatch(place, c, time)


@called
def allot(place: Place, world: World, requested: AnyArray, k: int, t: int) -> None:
    """Admit instances to GPU k, grant their shares and set their servers to them."""
    settings, gpus, speed = world.settings[0], place.gpus.shape[0], place.gpus[k].speed
    settle(place, requested, k, t)
    scale = scale_to_fit(requested[k::gpus])
    for i in range(place.agents.shape[0]):
        s = i * gpus + k
        instance, server, agent = place.instances[s], place.servers[s], place.agents[i]
        share = 0.0
        if instance.resident > 0.0:
            share = grant(clip(requested[s]) * scale, 1.0, settings.max_share, settings.slice)
        elif instance.share == 0.0:
            continue
        charge(instance, instance, agent, settings, share, t)
        server.last = min(place.start + instance.delay, place.end)
        moving = instance.delay < settings.dt
        server.prefill_speed = share * speed if moving else 0.0
        server.decode_speed = speedup(share, agent.kappa) * speed if moving else 0.0


@inlined
def clear(counts: Any) -> None:
    """Set counts to nothing."""
    counts.refused = counts.cold_starts = counts.wakes = counts.evictions = counts.hops = 0.0
    counts.hot_calls = counts.woken_calls = counts.dispatched = counts.usd = 0.0
    counts.gpu_mb = counts.host_mb = 0.0


@inlined
def add(counts: Any, totals: Any) -> None:
    """Add the counts of a step to those of its episode."""
    totals.refused += counts.refused
    totals.cold_starts += counts.cold_starts
    totals.wakes += counts.wakes
    totals.evictions += counts.evictions
    totals.hops += counts.hops
    totals.hot_calls += counts.hot_calls
    totals.woken_calls += counts.woken_calls
    totals.dispatched += counts.dispatched
    totals.usd += counts.usd
    totals.gpu_mb += counts.gpu_mb
    totals.host_mb += counts.host_mb


@inlined
def take_back(place: Place, s: int) -> None:
    """Let the calls that wait at an instance wait at its agent."""
    server = place.servers[s]
    c = server.head
    for _ in range(server.waiting):
        place.calls[c].at = NONE
        place.ledgers[server.agent].held += 1
        c = place.calls[c].behind
    server.waiting, server.head = 0, NONE


@called
def dispatch_held(place: Place, i: int) -> None:
    """Dispatch the calls that wait at agent i, in order of issue, where an instance has a share."""
    ledger = place.ledgers[i]
    if ledger.held == 0 or choose(place, i, place.start) == NONE:
        return
    c = ledger.oldest
    while ledger.held > 0:
        following = int(place.calls[c].next)
        if place.calls[c].at == NONE:
            ledger.held -= 1
            dispatch(place, c, place.start)
        c = following


@called
def prepare(place: Place, world: World, requested: AnyArray, t: int) -> None:
    """Begin a step: memory and shares, calls that return, and dispatch of those that wait at agents."""
    gpus, run, dt = place.gpus.shape[0], place.run[0], world.settings[0].dt
    run.integral = run.present * dt
    clear(place.counts[0])
    for k in range(gpus):
        allot(place, world, requested, k, t)
    for i in range(place.agents.shape[0]):
        open_step(place, i, dt)
        soonest = inf
        for s in range(i * gpus, (i + 1) * gpus):
            if place.instances[s].share == 0.0 and place.servers[s].waiting > 0:
                take_back(place, s)
            place.event[s] = next_event(place, s)
            soonest = min(soonest, place.event[s])
        place.soonest[i] = soonest
        dispatch_held(place, i)


@called
def write_agent(place: Place, world: World, did: Any, b: int, i: int, t: int) -> None:
    """Write what an agent's instances have done in a step, all of whose events are played."""
    gpus, agent, settings = place.gpus.shape[0], place.agents[i], world.settings[0]
    counts = place.counts[0]
    did.share = did.capacity = did.reallocated = did.cold_start = 0.0
    did.delay = settings.dt
    for k in range(gpus):
        instance, server = place.instances[i * gpus + k], place.servers[i * gpus + k]
        if instance.share > 0.0:
            work_until(server, agent, place.end)
            did.share += instance.share
            did.capacity += agent.throughput * server.decode_speed * (settings.dt - instance.delay)
            did.delay = min(did.delay, instance.delay)
            did.reallocated += instance.reallocated
            did.cold_start += instance.cold_start
            counts.usd += instance.share * place.gpus[k].usd_per_hour * settings.dt / 3600.0
    record_agent(place, world, did, b, i, t)


@called
def observe_instances(place: Place, world: World, b: int, i: int) -> None:
    """Write what a policy sees of an agent's instances."""
    gpus, agent, now, wake = place.gpus.shape[0], place.agents[i], world.state[b, i], wake_time(place, i)
    running = kv_in_use = residents = 0
    now.share, now.idle, now.loading = 0.0, inf, inf
    for k in range(gpus):
        instance, server = place.instances[i * gpus + k], place.servers[i * gpus + k]
        instance.asleep = float(copy_of(place, i, k).asleep)
        calls = server.waiting + server.running + server.coming + (1 if server.in_prefill != NONE else 0)
        instance.calls = float(calls)
        instance.running = server.running / agent.max_batch
        instance.kv_used = server.kv_in_use / agent.kv_tokens
        instance.fits = 1.0
        if instance.resident == 0.0:
            instance.loading = wake if instance.asleep > 0.0 else agent.cold_start
            memory_mb = place.gpus[k].memory_mb
            taken = memory_mb - place.memory[k].free_mb + agent.need_mb
            instance.fits = 0.0 if exceeds(taken, memory_mb) else 1.0
        else:
            residents += 1
        running += server.running
        kv_in_use += server.kv_in_use
        now.share += instance.share
        now.idle = min(now.idle, instance.idle)
        now.loading = min(now.loading, instance.loading)
    now.running = running / (agent.max_batch * max(1, residents))
    now.kv_used = kv_in_use / (agent.kv_tokens * max(1, residents))


@called
def observe_memory(place: Place) -> None:
    """Write what is free on each GPU and its node, and what is given of it."""
    gpus, counts = place.gpus.shape[0], place.counts[0]
    for k in range(gpus):
        memory, taken = place.memory[k], 0.0
        memory.given = 0.0
        for i in range(place.agents.shape[0]):
            instance = place.instances[i * gpus + k]
            memory.given += instance.share
            taken += place.agents[i].need_mb if instance.resident > 0.0 else 0.0
        memory.free_mb = place.gpus[k].memory_mb - taken
        counts.gpu_mb += taken
        if k > 0 and place.gpus[k].node == place.gpus[k - 1].node:
            memory.host_free_mb = place.memory[k - 1].host_free_mb
        else:
            asleep = host_memory_taken(place, k)
            memory.host_free_mb = place.gpus[k].host_memory_mb - asleep
            counts.host_mb += asleep


@compiled
def start(
    first: int,
    last: int,
    mask: AnyArray,
    warm: bool,
    world: World,
    service: Service,
    cluster: Cluster,
    shown: Shown,
) -> None:
    """Place the models of new episodes, whose tasks are drawn, for the environments of a range in `mask`."""
    for b in range(first, last):
        own = b if world.agents.shape[0] > 1 else 0
        place = place_of(service, cluster, world.agents[own], b, 0.0, 0.0)
        if mask[b]:
            settle_at_reset(place, warm)
            for s in range(place.servers.shape[0]):
                place.servers[s].prefill_speed = place.servers[s].decode_speed = 0.0
            clear(cluster.counts[b])
            clear(cluster.totals[b])
            observe_memory(place)
            for i in range(place.agents.shape[0]):
                observe_instances(place, world, b, i)
        show_cluster(place, world, b, own, shown)


@compiled
def step(
    first: int,
    last: int,
    requested: AnyArray,
    active: AnyArray,
    world: World,
    service: Service,
    cluster: Cluster,
    shown: Shown,
) -> int:
    """Advance the active environments of a range by one step and write what their policy sees next.

    Args:
        first: the first environment of the range.
        last: the one after its last.
        requested: fractions of each GPU that the policy asks for, (B, N K), agent by agent.
        active: (B,) bool, which environments to advance.
        world: the arrays that they live in; its records of agents hold sums over their instances.
        service: their tasks, calls and servers.
        cluster: what stands where.
        shown: where to write what is seen.

    Returns:
        OK, NOT_A_NUMBER or EPISODE_OVER; where it is not OK nothing has changed.
    """
    problem = check(first, last, requested, active, world.clock, world.arrivals.shape[0] - 1)
    if problem != OK:
        return problem
    dt, outcome = world.settings[0].dt, shown.outcome.view(OUTCOME)[:, :, 0]
    for b in range(first, last):
        own, t = b if world.agents.shape[0] > 1 else 0, world.clock[b]
        place = place_of(service, cluster, world.agents[own], b, t * dt, (t + 1) * dt)
        if active[b]:
            prepare(place, world, requested[b], t)
            play(place, begin)
            for i in range(place.agents.shape[0]):
                write_agent(place, world, outcome[b, i], b, i, t)
            age_instances(place, dt, t + 1)
            finish_step(place, world, outcome, b, own, t)
            observe_memory(place)
            add(cluster.counts[b], cluster.totals[b])
            for i in range(place.agents.shape[0]):
                observe_agent(place, world, b, i, t)
                observe_instances(place, world, b, i)
        show_cluster(place, world, b, own, shown)
    return OK
