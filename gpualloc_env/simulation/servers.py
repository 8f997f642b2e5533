"""Servers of calls, event by event in continuous time: what a pool of GPUs and a cluster have in common.

`play` takes the events of one environment in their order: tasks arrive, calls are issued, prefills end,
calls finish, and what follows from each follows at once. A server decodes at one rate for all calls of its
batch, so it keeps one clock, the tokens that a call which has run all the time has gained, and each call the
reading at which it is finished: the next to finish is the first of a heap. An event costs O(N + K + log C).

What becomes of a call that is due, `begin`, is handed down as a function: it goes to its agent's server, or
in a cluster is dispatched to one of them.
"""

from math import inf
from typing import Any, NamedTuple

from gpualloc_env.compiled import inlined
from gpualloc_env.simulation.calls import NONE, pop, push
from gpualloc_env.simulation.shares import CLOCK_TOLERANCE, Sums, World, price_step, split_reward
from gpualloc_env.simulation.state import AnyArray, Array, Records

# Clocks of tokens are sums of many parts: calls that are this close to their ends have come to it together.
TOKEN_TOLERANCE = 1e-9


class PoolArrays(NamedTuple):
    """One environment of a `Service`, and its agents."""

    run: Records  # (1,) of RUN
    tasks: Records  # (M,) of TASK
    calls: Records  # (C,) of CALL
    ledgers: Records  # (N,) of LEDGER
    servers: Records  # (N K,) of SERVER
    event: Array  # (N K,) [s]
    soonest: Array  # (N,) [s]
    running: Records  # (R,) of KEYED
    pending: Records  # (C,) of KEYED
    agents: Records  # (N,) of AGENT
    end: float  # [s] of the step


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
def next_event(arrays: Any, s: int) -> float:
    """When the call in prefill is through it, or else the first of those that run is finished [s]."""
    server = arrays.servers[s]
    agent = arrays.agents[server.agent]
    if server.prefill_speed <= 0.0:
        return inf
    if server.in_prefill != NONE:
        return server.last + max(0.0, server.prefill_left) / server.prefill_speed
    if server.running > 0:
        iteration = agent.iteration + agent.iteration_per_call * server.running
        tokens = max(0.0, arrays.running[server.heap].key - server.clock)
        return server.last + tokens * iteration / server.decode_speed
    return inf


@inlined
def schedule_next_event(arrays: Any, s: int) -> None:
    """Note when a server's next event is, and the first of its agent's servers."""
    i, gpus = arrays.servers[s].agent, arrays.event.shape[0] // arrays.soonest.shape[0]
    arrays.event[s] = next_event(arrays, s)
    soonest = inf
    for k in range(i * gpus, (i + 1) * gpus):
        soonest = min(soonest, arrays.event[k])
    arrays.soonest[i] = soonest


@inlined
def begin_prefill(arrays: Any, s: int, time: float) -> None:
    """Let the first call that waits begin its prefill if none is in it and the batch has a free place."""
    server = arrays.servers[s]
    agent, ledger = arrays.agents[server.agent], arrays.ledgers[server.agent]
    if server.in_prefill == NONE and server.waiting > 0 and server.running < agent.max_batch:
        call = arrays.calls[server.head]
        if server.kv_in_use + call.prompt + call.output <= agent.kv_tokens:
            # From here on those that run stand still.
            work_until(server, agent, time)
            server.in_prefill = server.head
            server.head = call.behind
            server.waiting -= 1
            ledger.waiting -= 1
            ledger.waiting_prompt -= call.prompt
            server.kv_in_use += call.prompt + call.output
            server.prefill_left = agent.prefill_per_token * call.prompt
            schedule_next_event(arrays, s)


@inlined
def enter(arrays: Any, s: int, c: int, time: float) -> None:
    """Put a call behind those that wait at a server."""
    server = arrays.servers[s]
    arrays.calls[c].behind = NONE
    if server.waiting > 0:
        arrays.calls[server.tail].behind = c
    else:
        server.head = c
    server.tail = c
    server.waiting += 1
    begin_prefill(arrays, s, time)


@inlined
def register(arrays: Any, c: int, time: float) -> None:
    """Write into its agent's ledger that a call is issued."""
    call = arrays.calls[c]
    ledger = arrays.ledgers[call.agent]
    call.issued, call.next = time, NONE
    if ledger.tail != NONE:
        arrays.calls[ledger.tail].next = c
    ledger.tail = c
    ledger.oldest = c if ledger.oldest == NONE else ledger.oldest
    ledger.due = c if ledger.due == NONE else ledger.due
    ledger.calls += 1
    ledger.waiting += 1
    ledger.waiting_prompt += call.prompt
    ledger.issued += 1
    ledger.fresh += 1 if call.stage == 0 else 0
    ledger.integral += arrays.end - time


@inlined
def postpone(arrays: Any, c: int, time: float) -> None:
    """Let a call be due at a later time [s]."""
    run = arrays.run[0]
    push(arrays.pending, run.pending, time, run.order, c)
    run.pending += 1
    run.order += 1


@inlined
def issue_stage(arrays: Any, m: int, time: float, begin: Any) -> None:
    """Issue the calls of a task's next stage, now or when their `after_s` has passed."""
    task = arrays.tasks[m]
    c, stage = int(task.next), arrays.calls[task.next].stage
    while c < task.after and arrays.calls[c].stage == stage:
        after_s = arrays.calls[c].after_s
        if after_s > 0.0:
            postpone(arrays, c, time + after_s)
        else:
            begin(arrays, c, time)
        c += 1
    task.left = c - task.next
    task.next = c


@inlined
def finish(arrays: Any, c: int, time: float, begin: Any) -> None:
    """Note the end of a call, and of its stage and its task where it was the last."""
    call = arrays.calls[c]
    ledger, task, run = arrays.ledgers[call.agent], arrays.tasks[call.task], arrays.run[0]
    call.finished = time
    ledger.calls -= 1
    ledger.served += 1
    ledger.integral -= arrays.end - time
    task.left -= 1
    if task.left == 0:
        if task.next == task.after:
            task.finished = time
            run.present -= 1
            run.integral -= arrays.end - time
        else:
            issue_stage(arrays, int(call.task), time, begin)


@inlined
def complete(arrays: Any, s: int, time: float, begin: Any) -> None:
    """End a server's prefill, or all those of its running calls that finish next.

    Calls that finish together do so before anything else begins.
    """
    server, run = arrays.servers[s], arrays.run[0]
    heap: Records = arrays.running[server.heap :]
    done = 0
    if server.in_prefill != NONE:
        c = server.in_prefill
        server.in_prefill = NONE
        arrays.calls[c].first_token = time
        place = heap[server.running]
        if arrays.calls[c].output > 1:
            push(heap, server.running, server.clock + (arrays.calls[c].output - 1), run.order, c)
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
        server.kv_in_use -= arrays.calls[heap[k].call].prompt + arrays.calls[heap[k].call].output
    # A clock that counts from the start of a busy period keeps its digits.
    server.clock = 0.0 if server.running == 0 else server.clock
    server.last = time
    schedule_next_event(arrays, s)
    begin_prefill(arrays, s, time)
    for k in range(server.running + done - 1, server.running - 1, -1):
        finish(arrays, int(heap[k].call), time, begin)


@inlined
def first_event(arrays: Any, i: int) -> int:
    """The server of agent i whose next event is the soonest."""
    s = i * (arrays.event.shape[0] // arrays.soonest.shape[0])
    while arrays.event[s] > arrays.soonest[i]:
        s += 1
    return s


@inlined
def play(arrays: Any, begin: Any) -> None:
    """Take the events up to the end of the step in their order; what ends comes before what begins."""
    run = arrays.run[0]
    while True:
        i, end_of_work = NONE, inf
        for k in range(arrays.soonest.shape[0]):
            if arrays.soonest[k] < end_of_work:
                i, end_of_work = k, arrays.soonest[k]
        waits = run.pending > 0
        start = arrays.pending[0].key if waits else inf
        if run.next_task < run.tasks and arrays.tasks[run.next_task].time <= start:
            start, waits = arrays.tasks[run.next_task].time, False
        if end_of_work <= start:
            if end_of_work > arrays.end + CLOCK_TOLERANCE:
                break
            complete(arrays, first_event(arrays, i), min(end_of_work, arrays.end), begin)
        elif start > arrays.end:
            break
        elif waits:
            c = int(arrays.pending[0].call)
            pop(arrays.pending, run.pending)
            run.pending -= 1
            begin(arrays, c, start)
        else:
            m = run.next_task
            run.next_task += 1
            run.present += 1
            run.integral += arrays.end - start
            issue_stage(arrays, m, start, begin)


@inlined
def open_step(arrays: Any, i: int, dt: float) -> None:
    """Begin an agent's sums of a step."""
    ledger = arrays.ledgers[i]
    ledger.integral = ledger.calls * dt
    ledger.fresh = ledger.issued = ledger.served = 0


@inlined
def record_agent(arrays: Any, world: World, did: Any, b: int, i: int, t: int) -> None:
    """Write what an agent's calls have come to in a step, all of whose events are played."""
    ledger, agent, settings = arrays.ledgers[i], arrays.agents[i], world.settings[0]
    late = 0
    while ledger.due != NONE and arrays.calls[ledger.due].issued + agent.slo <= arrays.end:
        call = arrays.calls[ledger.due]
        late += 1 if call.finished > call.issued + agent.slo else 0
        ledger.due = call.next
    while ledger.oldest != NONE and arrays.calls[ledger.oldest].finished < inf:
        ledger.oldest = arrays.calls[ledger.oldest].next
    did.arrivals = ledger.fresh
    did.queue = ledger.calls
    did.served = ledger.served
    did.backlog = ledger.integral * settings.per_dt
    did.late = late
    world.arrivals[t, b, i] = ledger.fresh
    world.inflows[t, b, i] = ledger.issued


@inlined
def finish_step(arrays: Any, world: World, outcome: AnyArray, b: int, own: int, t: int) -> None:
    """Price a step whose outcome is written, record it, and let the clock go on."""
    settings = world.settings[0]
    backlog = late = held = done = missing = guaranteed = 0.0
    for i in range(arrays.agents.shape[0]):
        agent, did = arrays.agents[i], outcome[b, i]
        # Those that had work when it was decided.
        promised = agent.min_share if world.state[b, i].queue > 0.0 else 0.0
        backlog += agent.weight * did.backlog
        late += agent.weight * did.late
        held += did.share
        done += did.served
        guaranteed += promised
        missing += max(0.0, promised - did.share)
    tasks = arrays.run[0].integral * settings.per_dt
    sums = Sums(backlog, late, held, done, missing, guaranteed, tasks)
    price_step(sums, world, b)
    split_reward(world, outcome, b, own, sums)
    if world.history.shape[1] > 0:
        for i in range(arrays.agents.shape[0]):
            world.history[b, t, i] = outcome[b, i]
    world.clock[b] = t + 1


@inlined
def observe_agent(arrays: Any, world: World, b: int, i: int, t: int) -> None:
    """Write what a policy sees of an agent's calls after step t, wherever they are."""
    ledger, agent, now = arrays.ledgers[i], arrays.agents[i], world.state[b, i]
    now.queue, now.inflow = ledger.calls, ledger.issued
    # The first step is the first that anything is known of: nothing comes before it.
    now.rate += world.rate_gain[t] * (ledger.issued * world.settings[0].per_dt - now.rate)
    now.oldest_age = arrays.end - arrays.calls[ledger.oldest].issued if ledger.oldest != NONE else 0.0
    now.waiting = ledger.waiting
    now.prefill = agent.prefill_per_token * ledger.waiting_prompt
