"""The step of a platform whose agents serve calls one by one, event by event in continuous time.

Read `step` from top to bottom: it allocates, plays the events of the step, ages the models, prices the
step and shows what the policy sees next; `gpualloc_env.simulation.servers` has the events.

What the columns of the records mean for calls, where the fluid has requests: `arrivals` are the calls issued
within the step as the first stage of their task, `inflow` and the inflows those of all stages, `served`
the calls that were finished, `queue` those in the system (waiting, in prefill, running) at the end of the
step, `backlog` the mean of their number over it, `capacity` T·f(g) times the time of service, and `late`
the calls that missed their SLO within the step, before they were finished.
"""

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.calls import Service
from gpualloc_env.simulation.curves import speedup
from gpualloc_env.simulation.observation import encode_calls
from gpualloc_env.simulation.servers import (
    PoolArrays,
    enter,
    finish_step,
    observe_agent,
    open_step,
    play,
    record_agent,
    register,
    schedule_next_event,
    work_until,
)
from gpualloc_env.simulation.shares import OK, World, age, charge, check, clip, grant, scale_to_fit
from gpualloc_env.simulation.state import OBSERVATION, OUTCOME, AnyArray


@inlined
def arrays_of(service: Service, agents: AnyArray, b: int, end: float) -> PoolArrays:
    """Environment b, whose agents are (N,) of AGENT, in a step that ends at some time [s]."""
    return PoolArrays(
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
    )


@inlined
def issue(arrays: PoolArrays, c: int, time: float) -> None:
    """Put a call into its agent's queue."""
    register(arrays, c, time)
    enter(arrays, arrays.calls[c].agent, c, time)


@inlined
def allot(arrays: PoolArrays, world: World, outcome: AnyArray, b: int, requested: AnyArray, t: int) -> None:
    """Grant the shares of a step, and set the servers to them."""
    settings, scale, run = world.settings[0], scale_to_fit(requested), arrays.run[0]
    run.integral = run.present * settings.dt
    for i in range(requested.shape[0]):
        server, agent, did = arrays.servers[i], arrays.agents[i], outcome[b, i]
        share = grant(clip(requested[i]) * scale, settings.gpus, settings.max_share, settings.slice)
        charge(world.state[b, i], did, agent, settings, share, t)
        server.last = min(t * settings.dt + did.delay, arrays.end)
        # Where the whole step is lost not even what takes no time ends.
        speed = share if did.delay < settings.dt else 0.0
        server.prefill_speed, server.decode_speed = speed, speedup(speed, agent.kappa)
        open_step(arrays, i, settings.dt)
        schedule_next_event(arrays, i)


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
    problem = check(first, last, requested, active, world.clock, world.arrivals.shape[0] - 1)
    if problem != OK:
        return problem
    settings, shape = world.settings[0], requested.shape
    outcome, rows = info.view(OUTCOME).reshape(shape), observation.view(OBSERVATION).reshape(shape)
    for b in range(first, last):
        own = b if world.agents.shape[0] > 1 else 0
        t = world.clock[b]
        if active[b]:
            arrays = arrays_of(service, world.agents[own], b, (t + 1) * settings.dt)
            allot(arrays, world, outcome, b, requested[b], t)
            play(arrays, issue)
            for i in range(requested.shape[1]):
                agent, now, did, server = (
                    arrays.agents[i],
                    world.state[b, i],
                    outcome[b, i],
                    arrays.servers[i],
                )
                work_until(server, agent, arrays.end)
                did.capacity = agent.throughput * server.decode_speed * (settings.dt - did.delay)
                record_agent(arrays, world, did, b, i, t)
                age(now, agent, settings, did.share)
            finish_step(arrays, world, outcome, b, own, t)
            for i in range(requested.shape[1]):
                server, agent, now = arrays.servers[i], arrays.agents[i], world.state[b, i]
                observe_agent(arrays, world, b, i, t)
                now.running = server.running / agent.max_batch
                now.kv_used = server.kv_in_use / agent.kv_tokens
        for i in range(requested.shape[1]):
            encode_calls(world.state[b, i], world.agents[own, i], settings, rows, b, i)
    return OK
