"""The draw of an episode's tasks at its reset, with all the randomness that it will ever have.

A source of tasks (an agent that calls come to from outside, the entry of a workflow, the sessions of a
log) is a Poisson process in two-state bursts in continuous time, or evenly spaced under a constant law:
the times at which the integral of its rate passes the sums of exponential numbers of mean 1, or of ones.
Each source has two generators of its own, seeded by the environment's: one for the times and contents of
its tasks, one for its bursts. So a longer episode begins as a shorter one does, and another length of step
changes nothing.

How many tasks there will be is known only when they are drawn. `draw_episode` writes as many as the
arrays hold and counts the others; where there are others it puts the environment's generator back, so that
it draws the same ones again when the caller has enlarged the arrays.
"""

from math import ceil, cos, exp, inf, log, pi, sin, sqrt
from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.arrivals import (
    OFF,
    ON,
    POISSON,
    Source,
    draw_agents,
    draw_rates,
    first_from,
)
from gpualloc_env.simulation.calls import (
    KEYED,
    NONE,
    Service,
    Tasks,
    pop,
    push,
    start_ledger,
    start_server,
)
from gpualloc_env.simulation.observation import encode_agent, encode_calls
from gpualloc_env.simulation.random import exponential, random_bits, seed_generator, uniform
from gpualloc_env.simulation.shares import World, begin
from gpualloc_env.simulation.state import OBSERVATION, AnyArray, Array, Records

SINGLE, WORKFLOW, SESSIONS, LOG = 0, 1, 2, 3
"""What a task is: one call, a walk through a workflow, a session of a log drawn at random, or a log's own
tasks at their own times."""


class Flow(NamedTuple):
    """A workflow: what follows each call of the agent to which its tasks come."""

    entry: int  # that agent
    end: float  # probability that the task ends
    specialists: AnyArray  # (S,) agents that it calls otherwise
    least: int  # of them at once
    most: int
    tool_s: float  # [s] mean of the exponential time before each of these calls


class TaskLaw(NamedTuple):
    """Everything that the compiled draw of an episode's tasks reads; the same for all environments."""

    arrivals: Source  # of tasks by source, which are numbered as the agents are
    nominal: AnyArray  # (1, N) of AGENT
    kind: int  # SINGLE, WORKFLOW, SESSIONS or LOG
    tokens: Array  # (N, 4) mean and deviation of the logarithms of a call's prompt, and of its output
    flow: Flow
    recorded: Tasks  # of a log
    episodes: int  # W windows that the log's times are cut into
    horizon: float  # [s] of an episode
    most: int  # calls that any memory holds


STREAM = np.dtype(
    [  # (N,), a source of tasks while an episode is drawn
        ("rate", np.float64),  # [tasks/s] in the mean
        ("time", np.float64),  # [s] of the next task, inf where there are no more
        ("turn", np.float64),  # [s] when its burst process turns
        ("state", np.int64),  # of that process, OFF or ON
        ("step", np.int64),  # whose factor on the rate holds
    ]
)


class Scratch(NamedTuple):
    """What one thread needs to draw an episode."""

    streams: Records  # (N,) of STREAM
    generators: AnyArray  # (N, 2, 4) uint64: for the tasks of each source, and for its bursts
    heap: Records  # (N,) of KEYED: the sources by the time of their next task
    order: AnyArray  # (S,) int64, specialists being chosen
    own: AnyArray  # (4,) uint64, the environment's generator before the draw


def new_scratch(agents: int, law: TaskLaw) -> Scratch:
    """Room for N agents' sources of tasks."""
    return Scratch(
        np.zeros(agents, STREAM),
        np.zeros((agents, 2, 4), np.uint64),
        np.zeros(agents, KEYED),
        np.zeros(len(law.flow.specialists), np.int64),
        np.zeros(4, np.uint64),
    )


@inlined
def _seek(law: Source, stream: Any, generators: AnyArray, i: int, horizon: float) -> None:
    """Set a source to the time of its next task."""
    need = exponential(generators[0], 1.0) if law.kind == POISSON else 1.0
    while True:
        intensity = stream.rate * law.burst_factors[stream.state] * law.profile[stream.step, i]
        until = min(horizon, stream.turn)
        if not law.steady:
            until = min(until, (stream.step + 1) * law.dt)
        passed = intensity * (until - stream.time)
        if passed >= need:
            stream.time += need / intensity
            return
        need -= passed
        stream.time = until
        if until >= horizon:
            stream.time = inf
            return
        if until >= stream.turn:
            stream.state = OFF if stream.state == ON else ON
            stream.turn += exponential(generators[1], law.burst_means[stream.state])
        else:
            stream.step += 1


@inlined
def _open(law: Source, generator: AnyArray, state: AnyArray, scratch: Scratch, horizon: float) -> int:
    """Set all sources to their first tasks; returns how many of them have one."""
    means, count = law.burst_means, 0
    bursty, common = means[ON] > 0.0, random_bits(generator)
    for i in range(state.shape[0]):
        stream, generators = scratch.streams[i], scratch.generators[i]
        seed_generator(generators[0], random_bits(generator))
        individual = random_bits(generator)
        seed_generator(generators[1], common if law.common_burst else individual)
        stream.rate, stream.time, stream.step, stream.state, stream.turn = state[i].rate, 0.0, 0, OFF, inf
        if bursty:
            on = uniform(generators[1]) < means[ON] / (means[OFF] + means[ON])
            stream.state = ON if on else OFF
            stream.turn = exponential(generators[1], means[stream.state])
        if stream.rate > 0.0:
            _seek(law, stream, generators, i, horizon)
            if stream.time < inf:
                push(scratch.heap, count, stream.time, i, i)
                count += 1
    return count


@inlined
def _add_task(tasks: AnyArray, m: int, time: float, first: int) -> None:
    """Write a task whose calls begin with one, if the array holds it."""
    if m < tasks.shape[0]:
        task = tasks[m]
        task.time, task.finished, task.first, task.next, task.left = time, inf, first, first, 0


@inlined
def _add_call(calls: AnyArray, c: int, m: int, stage: int, i: int, after_s: float) -> None:
    """Write a call of agent i, if the array holds it."""
    if c < calls.shape[0]:
        call = calls[c]
        call.task, call.stage, call.agent, call.after_s = m, stage, i, after_s
        call.issued = call.first_token = call.finished = inf
        call.next = call.behind = call.at = NONE


@inlined
def _draw_tokens(law: TaskLaw, calls: AnyArray, c: int, generator: AnyArray) -> None:
    """Draw a call's tokens by its agent's law, if the array holds the call.

    Both are lognormal and rounded up, the output at least 1. What is more than the agent's KV cache holds
    is cut: the output at K, then the prompt at what is left.
    """
    radius, angle = sqrt(-2.0 * log(uniform(generator))), 2.0 * pi * uniform(generator)
    if c < calls.shape[0]:
        call = calls[c]
        i = call.agent
        most = float(law.nominal[0, i].kv_tokens)
        output = exp(law.tokens[i, 2] + law.tokens[i, 3] * radius * cos(angle))
        prompt = exp(law.tokens[i, 0] + law.tokens[i, 1] * radius * sin(angle))
        # A logarithm and back must not make 801 of 800.
        output = min(most, max(1.0, ceil(output * (1.0 - 1e-12)))) if output < most else most
        prompt = min(most - output, ceil(prompt * (1.0 - 1e-12))) if prompt < most else most - output
        call.output, call.prompt = int(output), int(prompt)


@inlined
def _draw_flow(
    law: TaskLaw, calls: AnyArray, count: int, m: int, generator: AnyArray, scratch: Scratch
) -> int:
    """Draw a task of a workflow; returns the number of calls with those of this task."""
    flow, order, stage = law.flow, scratch.order, 0
    while True:
        _add_call(calls, count, m, stage, flow.entry, 0.0)
        _draw_tokens(law, calls, count, generator)
        count += 1
        if uniform(generator) < flow.end or count > law.most:
            return count
        number = flow.least + int(uniform(generator) * (flow.most - flow.least + 1))
        for k in range(order.shape[0]):
            order[k] = flow.specialists[k]
        for k in range(number):
            chosen = k + int(uniform(generator) * (order.shape[0] - k))
            i = order[chosen]
            order[chosen] = order[k]
            _add_call(calls, count, m, stage + 1, i, exponential(generator, flow.tool_s))
            _draw_tokens(law, calls, count, generator)
            count += 1
        stage += 2


@inlined
def _copy_task(recorded: Tasks, task: int, calls: AnyArray, count: int, m: int) -> int:
    """Write a task of a log; returns the number of calls with those of this task."""
    for c in range(recorded.first[task], recorded.first[task + 1]):
        _add_call(calls, count, m, recorded.stage[c], recorded.agent[c], recorded.after_s[c])
        if count < calls.shape[0]:
            calls[count].prompt, calls[count].output = recorded.prompt[c], recorded.output[c]
        count += 1
    return count


@inlined
def _draw_tasks(
    law: TaskLaw, generator: AnyArray, state: AnyArray, tasks: AnyArray, calls: AnyArray, scratch: Scratch
) -> tuple[int, int]:
    """Draw the tasks of all sources, whose rates are in `state`, in the order of their times."""
    m = count = 0
    alive = _open(law.arrivals, generator, state, scratch, law.horizon)
    while alive > 0 and count <= law.most:
        i = scratch.heap[0].call
        stream, own = scratch.streams[i], scratch.generators[i]
        _add_task(tasks, m, stream.time, count)
        if law.kind == WORKFLOW:
            count = _draw_flow(law, calls, count, m, own[0], scratch)
        elif law.kind == SESSIONS:
            session = int(uniform(own[0]) * (law.recorded.first.shape[0] - 1))
            count = _copy_task(law.recorded, session, calls, count, m)
        else:
            _add_call(calls, count, m, 0, i, 0.0)
            _draw_tokens(law, calls, count, own[0])
            count += 1
        if m < tasks.shape[0]:
            tasks[m].after = count
        m += 1
        pop(scratch.heap, alive)
        alive -= 1
        _seek(law.arrivals, stream, own, i, law.horizon)
        if stream.time < inf:
            push(scratch.heap, alive, stream.time, i, i)
            alive += 1
    return m, count


@inlined
def _replay(law: TaskLaw, window: int, state: Records, tasks: AnyArray, calls: AnyArray) -> tuple[int, int]:
    """Write the tasks of a window of a log at their own times; windows repeat after W."""
    recorded, m, count = law.recorded, 0, 0
    start = window % law.episodes * law.horizon
    for task in range(first_from(recorded.time, start), recorded.time.shape[0]):
        time = recorded.time[task] - start
        if time >= law.horizon:
            break
        _add_task(tasks, m, time, count)
        count = _copy_task(recorded, task, calls, count, m)
        if m < tasks.shape[0]:
            tasks[m].after = count
        m += 1
        for c in range(recorded.first[task], recorded.first[task + 1]):
            state[recorded.agent[c]].mean_rate += 1.0 / law.horizon
    return m, count


@inlined
def _draw_offered(law: TaskLaw, world: World, b: int, own: int) -> float:
    """Draw the agents and rates of an episode; returns the tasks a second of its law, 0 for a log's own."""
    generator, agents, state = world.generators[b, 0], world.agents[own], world.state[b]
    if law.arrivals.agent_spread > 0.0:
        draw_agents(generator, law.arrivals, law.nominal[0], agents)
        for i in range(agents.shape[0]):
            slower = law.nominal[0, i].throughput / agents[i].throughput
            agents[i].iteration = law.nominal[0, i].iteration * slower
            agents[i].iteration_per_call = law.nominal[0, i].iteration_per_call * slower
            agents[i].prefill_per_token = law.nominal[0, i].prefill_per_token * slower
            encode_agent(agents[i], world.settings[0])
    task_rate = 0.0
    if law.kind == LOG:
        for i in range(state.shape[0]):
            state[i].mean_rate = 0.0
    else:
        draw_rates(generator, law.arrivals, agents, state)
        for i in range(state.shape[0]):
            task_rate += state[i].rate * law.arrivals.mean_profile[i]
    return task_rate


@inlined
def _count(world: World, service: Service, b: int, own: int) -> None:
    """Count each agent's calls of an episode that is drawn, and the places for those that can run at once."""
    run, ledgers = service.run[b], service.ledgers[b]
    gpus = service.servers.shape[1] // ledgers.shape[0]
    for i in range(ledgers.shape[0]):
        ledgers[i].calls = 0
    run.places = 0
    for c in range(run.calls):
        i = service.calls[b, c].agent
        ledgers[i].calls += 1
        run.places += gpus if ledgers[i].calls <= world.agents[own, i].max_batch else 0


@inlined
def _start(world: World, service: Service, b: int, own: int, task_rate: float) -> None:
    """Set an environment to the start of an episode, whose tasks are drawn."""
    run, agents, state = service.run[b], world.agents[own], world.state[b]
    run.next_task = run.pending = run.order = run.present = 0
    run.integral = total_rate = weighted_rate = 0.0
    places, gpus = 0, service.servers.shape[1] // state.shape[0]
    for i in range(state.shape[0]):
        now, ledger = state[i], service.ledgers[b, i]
        batch = min(agents[i].max_batch, ledger.calls)
        start_ledger(ledger)
        for s in range(i * gpus, (i + 1) * gpus):
            start_server(service.servers[b, s], places)
            places += batch
            service.event[b, s] = inf
        service.soonest[b, i] = inf
        now.queue = now.inflow = now.rate = now.share = now.idle = now.oldest_age = 0.0
        now.running = now.waiting = now.prefill = now.kv_used = 0.0
        now.oldest_left = now.recent = 0.0
        now.oldest = 0
        total_rate += now.mean_rate
        weighted_rate += agents[i].weight * now.mean_rate
    begin(world, b, total_rate, weighted_rate, task_rate)


@compiled
def draw_episode(
    first: int,
    last: int,
    mask: AnyArray,
    law: TaskLaw,
    world: World,
    service: Service,
    scratch: Scratch,
    observation: AnyArray,
) -> None:
    """Draw a new episode, up to its first decision, for the environments of a range in `mask`, (B,) bool.

    `service.run` has then the numbers of tasks and calls. An environment that has more than the arrays
    hold has no episode yet: enlarge the arrays, and draw for it again.
    """
    settings, rows = world.settings[0], observation.view(OBSERVATION)[:, :, 0]
    for b in range(first, last):
        own = b if world.agents.shape[0] > 1 else 0
        state, tasks, calls, run = world.state[b], service.tasks[b], service.calls[b], service.run[b]
        if mask[b]:
            generator = world.generators[b, 0]
            for word in range(4):
                scratch.own[word] = generator[word]
            task_rate, expected = _draw_offered(law, world, b, own), 0.0
            for i in range(state.shape[0]):
                expected += state[i].mean_rate * law.horizon
            if law.kind == LOG:
                run.tasks, run.calls = _replay(law, world.windows[b], state, tasks, calls)
                task_rate = run.tasks / law.horizon
            elif expected < law.most:
                run.tasks, run.calls = _draw_tasks(law, generator, state, tasks, calls, scratch)
            else:
                run.tasks = run.calls = int(min(expected, 1e18))
            run.places = run.calls
            fits = run.tasks <= tasks.shape[0] and run.calls <= calls.shape[0]
            if fits:
                _count(world, service, b, own)
            if not fits or run.places > service.running.shape[1]:
                for word in range(4):
                    generator[word] = scratch.own[word]
            else:
                world.windows[b] += 1
                _start(world, service, b, own, task_rate)
                for i in range(state.shape[0]):
                    agent = world.agents[own, i]
                    state[i].loading = 0.0 if law.arrivals.warm else agent.cold_start
                for t in range(world.arrivals.shape[0]):
                    for i in range(state.shape[0]):
                        world.arrivals[t, b, i] = world.inflows[t, b, i] = 0.0
        for i in range(state.shape[0]):
            encode_calls(state[i], world.agents[own, i], settings, rows, b, i)
