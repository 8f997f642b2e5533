"""Which model stands where: memory of GPUs and hosts, and the tiers between which models move.

The pair of agent i and GPU k is an instance, number s = i K + k: a server of calls that needs memory for its
weights and its KV cache while it is resident. One that leaves is put to sleep in its node's host memory, from
which it wakes faster than it starts cold.
"""

from math import inf
from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.compiled import called, inlined
from gpualloc_env.simulation.calls import NONE
from gpualloc_env.simulation.shares import reached
from gpualloc_env.simulation.state import AnyArray, Array, Records

# Memories are sums of numbers like 0.1, which no two orders add up alike.
MEMORY_TOLERANCE = 1e-9

GPU = np.dtype(
    [  # (K,), node by node
        ("node", np.int64),
        ("memory_mb", np.float64),  # [MB]
        ("speed", np.float64),  # as a multiple of the GPU's on which the agents' times are measured
        ("usd_per_hour", np.float64),  # [$]
        ("host_memory_mb", np.float64),  # [MB] of its node
    ]
)

RULES = np.dtype(
    [  # (1,)
        ("hop_s", np.float64),  # [s] to another node, whatever is sent
        ("hop_s_per_token", np.float64),  # [s] of a prompt's token
        ("wake_s", np.float64),  # [s] of every model
        ("wake_s_per_mb", np.float64),  # [s] of a MB of its weights
        ("sleep_after_s", np.float64),  # [s] without a share before an instance leaves
        ("keep_alive_s", np.float64),  # [s] without one before it is gone
    ]
)

INSTANCE = np.dtype(
    [  # (B, N K)
        ("share", np.float64),  # [GPU] held during the last step
        ("resident", np.float64),  # 1 where it has its GPU's memory
        ("asleep", np.float64),  # 1 where its model sleeps on its node
        ("loading", np.float64),  # [s] until it can serve, were it given a share
        ("idle", np.float64),  # [s] since it last held a share
        ("calls", np.float64),  # [calls] there, or on their way there
        ("running", np.float64),  # fraction of the batch's places in which calls run
        ("kv_used", np.float64),  # fraction of the KV cache that is taken
        ("fits", np.float64),  # 1 where it is resident, or its GPU has the memory free
        # Of the last step, as in OUTCOME.
        ("delay", np.float64),
        ("reallocated", np.float64),
        ("cold_start", np.float64),
        ("woken", np.float64),  # 1 where its model slept on its node when it was admitted
    ]
)

HOST = np.dtype(
    [  # (B, N D), agent by agent the copies of its model that sleep on D nodes
        ("asleep", np.int64),  # 1 where there is one
        ("since", np.int64),  # the step at whose start it was put there
        ("idle", np.float64),  # [s] since its instance last held a share
    ]
)

MEMORY = np.dtype(
    [  # (B, K)
        ("free_mb", np.float64),  # [MB] of the GPU's memory
        ("given", np.float64),  # [GPU] sum of its shares
        ("host_free_mb", np.float64),  # [MB] of its node's host memory
    ]
)

COUNTS = np.dtype(
    [  # (B,), of a step, or of the steps of an episode
        ("refused", np.float64),  # shares whose instance found no memory
        ("cold_starts", np.float64),
        ("wakes", np.float64),
        ("evictions", np.float64),  # instances that left for another one
        ("hops", np.float64),  # calls that went to another node
        # Not in `info`: what the metrics of an episode need besides.
        ("hot_calls", np.float64),  # calls dispatched to an instance that had nothing left to load
        ("woken_calls", np.float64),  # calls dispatched to one whose model was waking
        ("dispatched", np.float64),  # calls dispatched at all; those that come back count again
        ("usd", np.float64),  # [$] of the shares
        ("gpu_mb", np.float64),  # [MB] that residents take at the end of a step
        ("host_mb", np.float64),  # [MB] that sleeping models take then
    ]
)
EVENTS = ("refused", "cold_starts", "wakes", "evictions", "hops")
"""Columns of the counts that `info` shows."""


class Cluster(NamedTuple):
    """What the environments of a cluster have besides a `World` and a `Service`."""

    gpus: AnyArray  # (K,) of GPU
    rules: AnyArray  # (1,) of RULES
    instances: AnyArray  # (B, N K) of INSTANCE
    hosts: AnyArray  # (B, N D) of HOST
    memory: AnyArray  # (B, K) of MEMORY
    counts: AnyArray  # (B,) of COUNTS, of the last step
    totals: AnyArray  # (B,) of COUNTS, of the episode


class Place(NamedTuple):
    """One environment: what `gpualloc_env.simulation.servers.PoolArrays` has, and what stands where."""

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
    start: float  # [s] of the step
    gpus: Records  # (K,) of GPU
    rules: Records  # (1,) of RULES
    instances: Records  # (N K,) of INSTANCE
    hosts: Records  # (N D,) of HOST
    memory: Records  # (K,) of MEMORY
    counts: Records  # (1,) of COUNTS


@inlined
def wake_time(place: Place, i: int) -> float:
    """Time in which agent i's model wakes [s]."""
    rules = place.rules[0]
    return rules.wake_s + rules.wake_s_per_mb * place.agents[i].model_mb


@inlined
def copy_of(place: Place, i: int, k: int) -> Any:
    """The record of agent i's model in the host memory of GPU k's node."""
    return place.hosts[i * (place.hosts.shape[0] // place.agents.shape[0]) + place.gpus[k].node]


@inlined
def memory_taken(place: Place, k: int, requested: AnyArray, wanted_alone: bool) -> float:
    """Memory of the residents of GPU k [MB], of all or of those that a share is asked for."""
    gpus, taken = place.gpus.shape[0], 0.0
    for i in range(place.agents.shape[0]):
        s = i * gpus + k
        if place.instances[s].resident > 0.0 and (requested[s] > 0.0 or not wanted_alone):
            taken += place.agents[i].need_mb
    return taken


@inlined
def exceeds(taken: float, memory: float) -> bool:
    """Whether models need more than a memory [MB]; sums in another order must lead to the same decision."""
    return taken > memory * (1.0 + MEMORY_TOLERANCE)


@inlined
def host_memory_taken(place: Place, k: int) -> float:
    """Memory of the models that sleep on GPU k's node [MB]."""
    taken = 0.0
    for i in range(place.agents.shape[0]):
        if copy_of(place, i, k).asleep == 1:
            taken += place.agents[i].model_mb
    return taken


@called
def put_to_sleep(place: Place, i: int, k: int, step: int, idle: float) -> None:
    """Keep agent i's model on the host of GPU k's node, where those longest asleep leave it the memory."""
    size, room, copy = place.agents[i].model_mb, place.gpus[k].host_memory_mb, copy_of(place, i, k)
    if exceeds(size, room):
        return
    if copy.asleep == 0:
        while exceeds(host_memory_taken(place, k) + size, room):
            longest, since = NONE, np.iinfo(np.int64).max
            for j in range(place.agents.shape[0]):
                other = copy_of(place, j, k)
                if other.asleep == 1 and other.since < since:
                    longest, since = j, other.since
            copy_of(place, longest, k).asleep = 0
    copy.asleep, copy.since, copy.idle = 1, step, idle


@inlined
def hand_back(place: Place, c: int) -> None:
    """Let a call wait at its agent, without what it had."""
    call = place.calls[c]
    ledger = place.ledgers[call.agent]
    call.at, call.first_token = NONE, inf
    ledger.waiting += 1
    ledger.waiting_prompt += call.prompt
    ledger.held += 1


@called
def leave(place: Place, i: int, k: int, step: int) -> None:
    """Take the memory from an instance; its calls in prefill and running go back to the agent."""
    s = i * place.gpus.shape[0] + k
    instance, server = place.instances[s], place.servers[s]
    instance.resident = 0.0
    if server.in_prefill != NONE:
        hand_back(place, server.in_prefill)
    for n in range(server.heap, server.heap + server.running):
        hand_back(place, int(place.running[n].call))
    server.in_prefill, server.running, server.kv_in_use, server.clock = NONE, 0, 0, 0.0
    if not reached(instance.idle, place.rules[0].keep_alive_s):
        put_to_sleep(place, i, k, step, instance.idle)


@inlined
def admit(place: Place, i: int, k: int) -> None:
    """Give an instance its memory, and let its model wake or start cold."""
    instance, copy, counts = (
        place.instances[i * place.gpus.shape[0] + k],
        copy_of(place, i, k),
        place.counts[0],
    )
    instance.resident = 1.0
    if copy.asleep == 1:
        copy.asleep = 0
        instance.loading, instance.woken = wake_time(place, i), 1.0
        counts.wakes += 1.0
    else:
        instance.loading, instance.woken = place.agents[i].cold_start, 0.0
        counts.cold_starts += 1.0


@called
def evict_longest_idle(place: Place, k: int, requested: AnyArray, step: int) -> None:
    """Let the resident of GPU k leave that no share is asked for and that has been idle for the longest."""
    gpus, longest, idle = place.gpus.shape[0], NONE, -1.0
    for i in range(place.agents.shape[0]):
        instance = place.instances[i * gpus + k]
        if instance.resident > 0.0 and requested[i * gpus + k] <= 0.0 and instance.idle > idle:
            longest, idle = i, instance.idle
    leave(place, longest, k, step)
    place.counts[0].evictions += 1.0


@called
def settle(place: Place, requested: AnyArray, k: int, step: int) -> None:
    """Admit to GPU k, in order of agents, the instances that a share is asked for, (N K,) fractions."""
    gpus, room = place.gpus.shape[0], place.gpus[k].memory_mb
    for i in range(place.agents.shape[0]):
        s = i * gpus + k
        if requested[s] > 0.0 and place.instances[s].resident == 0.0:
            if exceeds(memory_taken(place, k, requested, True) + place.agents[i].need_mb, room):
                place.counts[0].refused += 1.0
                continue
            while exceeds(memory_taken(place, k, requested, False) + place.agents[i].need_mb, room):
                evict_longest_idle(place, k, requested, step)
            admit(place, i, k)


@called
def settle_at_reset(place: Place, warm: bool) -> None:
    """Set all instances to the start of an episode; with `warm`, as many as fit are resident or asleep."""
    gpus, agents = place.gpus.shape[0], place.agents.shape[0]
    for s in range(place.instances.shape[0]):
        instance = place.instances[s]
        instance.share = instance.resident = instance.loading = instance.idle = 0.0
        instance.delay = instance.reallocated = instance.cold_start = instance.woken = 0.0
    for copy in range(place.hosts.shape[0]):
        place.hosts[copy].asleep = place.hosts[copy].since = 0
        place.hosts[copy].idle = 0.0
    if not warm:
        return
    for k in range(gpus):
        taken = 0.0
        for n in range(2 * agents):
            # Its own agents k, k + K, …, and then the others.
            i, own = n % agents, n % agents % gpus == k
            if own == (n < agents):
                taken += place.agents[i].need_mb
                if exceeds(taken, place.gpus[k].memory_mb):
                    break
                place.instances[i * gpus + k].resident = 1.0
    for k in range(gpus):
        if k == 0 or place.gpus[k].node != place.gpus[k - 1].node:
            fill_host(place, k)


@called
def fill_host(place: Place, k: int) -> None:
    """Let the models that no GPU of GPU k's node holds sleep there, in order, as long as they fit."""
    gpus, taken = place.gpus.shape[0], 0.0
    for i in range(place.agents.shape[0]):
        held = False
        for other in range(gpus):
            here = place.gpus[other].node == place.gpus[k].node
            held |= here and place.instances[i * gpus + other].resident > 0.0
        if not held:
            taken += place.agents[i].model_mb
            if exceeds(taken, place.gpus[k].host_memory_mb):
                break
            copy_of(place, i, k).asleep = 1


@called
def age_instances(place: Place, dt: float, step: int) -> None:
    """Residency after a step: idle times, loading, and who leaves its GPU or its host after long idleness.

    Args:
        place: one environment.
        dt: length of a step [s].
        step: the next one.
    """
    gpus, rules = place.gpus.shape[0], place.rules[0]
    for n in range(place.hosts.shape[0]):
        copy = place.hosts[n]
        if copy.asleep == 1:
            copy.idle += dt
            copy.asleep = 0 if reached(copy.idle, rules.keep_alive_s) else 1
    for k in range(gpus):
        for i in range(place.agents.shape[0]):
            instance = place.instances[i * gpus + k]
            if instance.share > 0.0:
                instance.idle = 0.0
                instance.loading = max(0.0, instance.loading - dt)
            else:
                instance.idle += dt
                if instance.resident > 0.0 and reached(instance.idle, rules.sleep_after_s):
                    leave(place, i, k, step)
