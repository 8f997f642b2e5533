"""The step of a platform whose agents serve calls one by one, event by event in continuous time.

Read `step` from top to bottom: it allocates, plays the events of the step, ages the models, prices the
step and shows what the policy sees next. In between, `play` takes the events of one environment in their
order: tasks arrive, calls are issued, prefills end, calls finish, and what follows from each follows at
once. A server decodes at one rate for all calls of its batch, so it keeps one clock, the tokens that a
call which has run all the time has gained, and each call the reading at which it is finished: the next to
finish is the first of a heap. An event costs O(N + log C).

What the columns of the records mean here, where the fluid has requests: `arrivals` are the calls issued
within the step as the first stage of their task, `inflow` and the inflows those of all stages, `served`
the calls that were finished, `queue` those in the system (waiting, in prefill, running) at the end of the
step, `backlog` the mean of their number over it, `capacity` T·f(g) times the time of service, and `late`
the calls that passed their service objective within the step before they were finished.
"""

from math import inf
from typing import Any, NamedTuple

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.calls import NONE, Service, pop, push
from gpualloc_env.simulation.curves import speedup
from gpualloc_env.simulation.shares import (
    CLOCK_TOLERANCE,
    OK,
    Sums,
    World,
    age,
    charge,
    check,
    clip,
    grant,
    price_step,
    scale_to_fit,
    show,
    split_reward,
)
from gpualloc_env.simulation.state import OBSERVATION, AnyArray, Array, Records

# Clocks of tokens are sums of many parts: calls that are this close to their ends have come to it together.
TOKEN_TOLERANCE = 1e-9


class Here(NamedTuple):
    """One environment of a `Service`, and its agents."""

    run: Records  # (1,) of RUN
    tasks: Records  # (M,) of TASK
    calls: Records  # (C,) of CALL
    servers: Records  # (N,) of SERVER
    event: Array  # (N,) [s]
    running: Records  # (C,) of KEYED
    pending: Records  # (C,) of KEYED
    agents: Records  # (N,) of AGENT
    end: float  # [s] of the step


@inlined
def here_of(service: Service, agents: AnyArray, b: int, end: float) -> Here:
    """Environment b, whose agents are (N,) of AGENT, in a step that ends at some time [s]."""
    return Here(
        service.run[b : b + 1],
        service.tasks[b],
        service.calls[b],
        service.servers[b],
        service.event[b],
        service.running[b],
        service.pending[b],
        agents,
        end,
    )


@inlined
def work_until(server: Any, agent: Any, time: float) -> None:
    """Do the work of a server up to a time [s] before which nothing ends and nothing begins."""
    passed = time - server.last
    if passed <= 0.0:
        return
    server.last = time
    if server.in_prefill != NONE:
        server.prefill_left -= passed * server.prefill_speed
    elif server.running > 0 and server.decode_speed > 0.0:
        iteration = agent.iteration + agent.iteration_per_call * server.running
        server.clock += passed * server.decode_speed / iteration


@inlined
def next_event(here: Here, i: int) -> float:
    """When the call in prefill is through it, or else the first of those that run is finished [s]."""
    server, agent = here.servers[i], here.agents[i]
    if server.prefill_speed <= 0.0:
        return inf
    if server.in_prefill != NONE:
        return server.last + max(0.0, server.prefill_left) / server.prefill_speed
    if server.running > 0:
        iteration = agent.iteration + agent.iteration_per_call * server.running
        tokens = max(0.0, here.running[server.heap].key - server.clock)
        return server.last + tokens * iteration / server.decode_speed
    return inf


@inlined
def begin_prefill(here: Here, i: int, time: float) -> None:
    """Let the first call that waits begin its prefill if none is in it and the batch has room."""
    server, agent = here.servers[i], here.agents[i]
    if server.in_prefill == NONE and server.waiting > 0 and server.running < agent.max_batch:
        call = here.calls[server.head]
        if server.room + call.prompt + call.output <= agent.kv_tokens:
            # From here on those that run stand still.
            work_until(server, agent, time)
            server.in_prefill = server.head
            server.head = call.next
            server.waiting -= 1
            server.waiting_prompt -= call.prompt
            server.room += call.prompt + call.output
            server.prefill_left = agent.prefill_per_token * call.prompt
            here.event[i] = next_event(here, i)


@inlined
def issue(here: Here, c: int, time: float) -> None:
    """Put a call into its agent's queue."""
    call = here.calls[c]
    i = call.agent
    server = here.servers[i]
    call.issued, call.next = time, NONE
    if server.tail != NONE:
        here.calls[server.tail].next = c
    server.tail = c
    server.head = c if server.waiting == 0 else server.head
    server.oldest = c if server.oldest == NONE else server.oldest
    server.due = c if server.due == NONE else server.due
    server.calls += 1
    server.waiting += 1
    server.waiting_prompt += call.prompt
    server.issued += 1
    server.fresh += 1 if call.stage == 0 else 0
    server.integral += here.end - time
    begin_prefill(here, i, time)


@inlined
def issue_stage(here: Here, m: int, time: float) -> None:
    """Issue the calls of a task's next stage, now or when their `after_s` has passed."""
    task, run = here.tasks[m], here.run[0]
    c, stage = task.next, here.calls[task.next].stage
    while c < task.after and here.calls[c].stage == stage:
        after_s = here.calls[c].after_s
        if after_s > 0.0:
            push(here.pending, run.pending, time + after_s, run.order, c)
            run.pending += 1
            run.order += 1
        else:
            issue(here, c, time)
        c += 1
    task.left = c - task.next
    task.next = c


@inlined
def finish(here: Here, c: int, time: float) -> None:
    """Note the end of a call, and of its stage and its task where it was the last."""
    call = here.calls[c]
    server, task, run = here.servers[call.agent], here.tasks[call.task], here.run[0]
    call.finished = time
    server.calls -= 1
    server.served += 1
    server.integral -= here.end - time
    task.left -= 1
    if task.left == 0:
        if task.next == task.after:
            task.finished = time
            run.present -= 1
            run.integral -= here.end - time
        else:
            issue_stage(here, call.task, time)


@inlined
def complete(here: Here, i: int, time: float) -> None:
    """End a server's prefill, or all those of its running calls that finish next.

    Calls that finish together do so before anything else begins.
    """
    server, run = here.servers[i], here.run[0]
    heap: Records = here.running[server.heap :]
    done = 0
    if server.in_prefill != NONE:
        c = server.in_prefill
        server.in_prefill = NONE
        here.calls[c].first_token = time
        place = heap[server.running]
        if here.calls[c].output > 1:
            push(heap, server.running, server.clock + (here.calls[c].output - 1), run.order, c)
            server.running += 1
            run.order += 1
        else:
            place.call, done = c, 1
    else:
        server.clock = heap[0].key
        while server.running > 0 and heap[0].key <= server.clock + TOKEN_TOLERANCE:
            pop(heap, server.running)
            server.running -= 1
            done += 1
    # Those that are done stand behind those that run, the first of them last.
    for k in range(server.running, server.running + done):
        server.room -= here.calls[heap[k].call].prompt + here.calls[heap[k].call].output
    # A clock that counts from the start of a busy period keeps its digits.
    server.clock = 0.0 if server.running == 0 else server.clock
    server.last = time
    here.event[i] = next_event(here, i)
    begin_prefill(here, i, time)
    for k in range(server.running + done - 1, server.running - 1, -1):
        finish(here, heap[k].call, time)


@inlined
def play(here: Here) -> None:
    """Take the events up to the end of the step in their order; what ends comes before what begins."""
    run = here.run[0]
    while True:
        i, end_of_work = NONE, inf
        for k in range(here.event.shape[0]):
            if here.event[k] < end_of_work:
                i, end_of_work = k, here.event[k]
        waits = run.pending > 0
        start = here.pending[0].key if waits else inf
        if run.next_task < run.tasks and here.tasks[run.next_task].time <= start:
            start, waits = here.tasks[run.next_task].time, False
        if end_of_work <= start:
            if end_of_work > here.end + CLOCK_TOLERANCE:
                break
            complete(here, i, min(end_of_work, here.end))
        elif start > here.end:
            break
        elif waits:
            c = here.pending[0].call
            pop(here.pending, run.pending)
            run.pending -= 1
            issue(here, c, start)
        else:
            m = run.next_task
            run.next_task += 1
            run.present += 1
            run.integral += here.end - start
            issue_stage(here, m, start)


@inlined
def allot(here: Here, world: World, b: int, requested: AnyArray, t: int) -> None:
    """Grant the shares of a step, and set the servers to them."""
    settings, scale, run = world.settings[0], scale_to_fit(requested), here.run[0]
    run.integral = run.present * settings.dt
    for i in range(requested.shape[0]):
        server, agent, did = here.servers[i], here.agents[i], world.outcome[b, i]
        share = grant(clip(requested[i]) * scale, settings.gpus, settings.max_share, settings.slice)
        charge(world.state[b, i], did, agent, settings, share, t)
        server.last = min(t * settings.dt + did.delay, here.end)
        # Where the whole step is lost not even what takes no time ends.
        speed = share if did.delay < settings.dt else 0.0
        server.prefill_speed, server.decode_speed = speed, speedup(speed, agent.kappa)
        server.integral = server.calls * settings.dt
        server.fresh = server.issued = server.served = 0
        here.event[i] = next_event(here, i)


@inlined
def account(here: Here, world: World, b: int, i: int, t: int) -> None:
    """Write what a server has done in a step, all of whose events are played."""
    server, agent, settings = here.servers[i], here.agents[i], world.settings[0]
    did = world.outcome[b, i]
    work_until(server, agent, here.end)
    late = 0
    while server.due != NONE and here.calls[server.due].issued + agent.slo <= here.end:
        call = here.calls[server.due]
        late += 1 if call.finished > call.issued + agent.slo else 0
        server.due = call.next
    while server.oldest != NONE and here.calls[server.oldest].finished < inf:
        server.oldest = here.calls[server.oldest].next
    did.arrivals = server.fresh
    did.queue = server.calls
    did.served = server.served
    did.capacity = agent.throughput * server.decode_speed * (settings.dt - did.delay)
    did.backlog = server.integral * settings.per_dt
    did.late = late
    world.arrivals[t, b, i] = server.fresh
    world.inflows[t, b, i] = server.issued


@inlined
def look(here: Here, world: World, b: int, i: int, t: int) -> None:
    """Write what a policy sees of a server after step t."""
    server, agent, now = here.servers[i], here.agents[i], world.state[b, i]
    now.queue, now.inflow = server.calls, server.issued
    # The first step is the first that anything is known of: nothing comes before it.
    now.rate += world.rate_gain[t] * (server.issued * world.settings[0].per_dt - now.rate)
    now.oldest_age = here.end - here.calls[server.oldest].issued if server.oldest != NONE else 0.0
    now.running = server.running / agent.max_batch
    now.waiting = server.waiting
    now.prefill = agent.prefill_per_token * server.waiting_prompt
    now.kv_used = server.room / agent.kv_tokens


@compiled
def step(
    first: int,
    last: int,
    requested: AnyArray,
    active: AnyArray,
    world: World,
    service: Service,
    info: AnyArray,
    observation: AnyArray,
) -> int:
    """Advance the active environments of a range by one step and write what their policy sees next.

    `service` holds the tasks, calls and servers; all else is as `gpualloc_env.simulation.fluid.step` has it.
    """
    problem = check(first, last, requested, active, world)
    if problem != OK:
        return problem
    settings, shown = world.settings[0], observation.view(OBSERVATION)
    for b in range(first, last):
        own = b if world.agents.shape[0] > 1 else 0
        episode, t = world.episode[b], world.episode[b].clock
        if not active[b]:
            for i in range(requested.shape[1]):
                show(world, b, own, i, info, shown[b, i, 0])
            continue
        here = here_of(service, world.agents[own], b, (t + 1) * settings.dt)
        allot(here, world, b, requested[b], t)
        play(here)
        backlog = late = held = done = missing = guaranteed = 0.0
        for i in range(requested.shape[1]):
            agent, now, did = here.agents[i], world.state[b, i], world.outcome[b, i]
            account(here, world, b, i, t)
            promised = agent.min_share if now.queue > 0.0 else 0.0
            age(now, agent, settings, did.share)
            backlog += agent.weight * did.backlog
            late += agent.weight * did.late
            held += did.share
            done += did.served
            guaranteed += promised
            missing += max(0.0, promised - did.share)
        tasks = here.run[0].integral * settings.per_dt
        sums = Sums(backlog, late, held, done, missing, guaranteed, tasks)
        price_step(sums, world.worth[b], episode, settings)
        split_reward(world, b, own, sums)
        if world.history.shape[1] > 0:
            for i in range(requested.shape[1]):
                world.history[b, t, i] = world.outcome[b, i]
        episode.clock = t + 1
        for i in range(requested.shape[1]):
            look(here, world, b, i, t)
            show(world, b, own, i, info, shown[b, i, 0])
    return OK
