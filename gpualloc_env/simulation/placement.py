"""What a policy of a cluster sees: the rows of the observation, and `ClusterView` in raw units."""

from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.compiled import called, inlined
from gpualloc_env.simulation.calls import Service
from gpualloc_env.simulation.observation import View, encode_calls, read_only, squash, view_of
from gpualloc_env.simulation.residency import Cluster, Place
from gpualloc_env.simulation.shares import World
from gpualloc_env.simulation.state import OBSERVATION, AnyArray, Array, names_of

AGENT_ROW = np.dtype(
    [  # (B, N): its calls wherever they are, its share and its idleness over all GPUs
        ("calls", OBSERVATION),
        ("held", np.float32),  # time to serve on one whole GPU the calls that wait at the agent itself [s]
    ]
)

INSTANCE_ROW = np.dtype(
    [  # (B, N K)
        ("share", np.float32),  # [GPU]
        ("resident", np.float32),  # 1 where it has its GPU's memory
        ("asleep", np.float32),  # 1 where its model sleeps on its node
        ("loading", np.float32),  # [s] until it can serve, were it given a share
        ("idle", np.float32),  # fraction of the time after which it leaves
        ("calls", np.float32),  # there, or on their way there
        ("running", np.float32),  # fraction of the batch's places in which calls run
        ("kv_used", np.float32),  # fraction of the KV cache that is taken
        ("fits", np.float32),  # 1 where it is resident, or its GPU has the memory free
    ]
)

GPU_ROW = np.dtype(
    [  # (B, K)
        ("memory_free", np.float32),  # fraction of its memory
        ("given", np.float32),  # sum of its shares
        ("speed", np.float32),  # as a multiple of the GPU's on which the agents' times are measured
        ("host_memory_free", np.float32),  # fraction of its node's host memory; 0 where there is none
    ]
)

AGENT_FEATURES = (*names_of(OBSERVATION), "held")
INSTANCE_FEATURES, GPU_FEATURES = names_of(INSTANCE_ROW), names_of(GPU_ROW)
"""Columns of the three parts of the observation. Those without a natural bound enter as x / (1 + x)."""


class Shown(NamedTuple):
    """What a step shows of B environments."""

    agents: AnyArray  # (B, N, columns of AGENT_ROW) float32
    instances: AnyArray  # (B, N, K, columns of INSTANCE_ROW) float32
    gpus: AnyArray  # (B, K, columns of GPU_ROW) float32
    outcome: Array  # (B, N, columns of OUTCOME)
    share: Array  # (B, N, K) [GPU]
    resident: AnyArray  # (B, N, K) bool


class ClusterView(NamedTuple):
    """What a policy of a cluster may know, in raw units; live, as a `View` is.

    Arrays have a leading axis of B in a batch, but for those of the hardware.
    """

    agents: View  # (N,): calls wherever they are, shares and idleness over all GPUs; `gpus` is K
    held: AnyArray  # (N,) [calls] that wait at the agent itself
    need_mb: Array  # (N,) [MB] that an instance takes of a GPU's memory
    model_mb: Array  # (N,) [MB] that it takes of a host's
    share: Array  # (N, K) [GPU]
    resident: Array  # (N, K) 1 or 0
    asleep: Array  # (N, K) 1 where the model sleeps on the GPU's node
    loading: Array  # (N, K) [s] until it can serve, were it given a share
    idle: Array  # (N, K) [s] since it last held a share
    calls: Array  # (N, K) there, or on their way there
    running: Array  # (N, K) fraction of the batch's places
    kv_used: Array  # (N, K) fraction of the KV cache
    free_mb: Array  # (K,) [MB] of each GPU
    host_free_mb: Array  # (K,) [MB] of its node's host
    node: AnyArray  # (K,) index of its node
    memory_mb: Array  # (K,) [MB]
    speed: Array  # (K,)
    sleep_after_s: float  # [s]
    keep_alive_s: float  # [s]


ROWS = (
    *("held", "need_mb", "model_mb", "share", "resident", "asleep", "loading", "idle", "calls", "running"),
    *("kv_used", "free_mb", "host_free_mb"),
)
"""Fields of a `ClusterView` whose arrays have a row for each environment, beside those of `agents`."""


@inlined
def encode_instance(instance: Any, per_patience: float, row: Any) -> None:
    """Write an instance's row of the observation, from INSTANCE and 1 / the time after which it leaves."""
    row.share = instance.share
    row.resident = instance.resident
    row.asleep = instance.asleep
    row.loading = squash(instance.loading, 1.0)
    row.idle = min(1.0, instance.idle * per_patience)
    row.calls = squash(instance.calls, 1.0)
    row.running = instance.running
    row.kv_used = instance.kv_used
    row.fits = instance.fits


@called
def show_cluster(place: Place, world: World, b: int, own: int, shown: Shown) -> None:
    """Write what callers see of an environment: its observation and what it holds."""
    gpus, settings, rules = place.gpus.shape[0], world.settings[0], place.rules[0]
    per_patience = 1.0 / max(rules.sleep_after_s, settings.dt)
    agents, instances = shown.agents.view(AGENT_ROW), shown.instances.view(INSTANCE_ROW)
    rows, calls = shown.gpus.view(GPU_ROW), agents["calls"][:, :, 0]
    for i in range(place.agents.shape[0]):
        row = agents[b, i, 0]
        encode_calls(world.state[b, i], world.agents[own, i], settings, calls, b, i)
        row.held = squash(float(place.ledgers[i].held), place.agents[i].throughput)
        for k in range(gpus):
            instance = place.instances[i * gpus + k]
            encode_instance(instance, per_patience, instances[b, i, k, 0])
            shown.share[b, i, k] = instance.share
            shown.resident[b, i, k] = instance.resident > 0.0
    for k in range(gpus):
        row, memory, gpu = rows[b, k, 0], place.memory[k], place.gpus[k]
        row.memory_free = min(1.0, max(0.0, memory.free_mb / gpu.memory_mb))
        row.given = min(1.0, memory.given)
        row.speed = squash(gpu.speed, 1.0)
        room = gpu.host_memory_mb
        row.host_memory_free = min(1.0, max(0.0, memory.host_free_mb / room)) if room > 0.0 else 0.0


def cluster_view_of(world: World, service: Service, cluster: Cluster) -> ClusterView:
    """View of the records of B environments; it cannot be written to."""
    environments, agents = world.state.shape
    rows = np.broadcast_to(world.agents, (environments, agents))
    instances = read_only(cluster.instances).reshape(environments, agents, -1)
    memory, gpus = read_only(cluster.memory), read_only(cluster.gpus)
    seen = ("share", "resident", "asleep", "loading", "idle", "calls", "running", "kv_used")
    return ClusterView(
        agents=view_of(world.state, rows, world.settings),
        held=read_only(service.ledgers)["held"],
        need_mb=rows["need_mb"],
        model_mb=rows["model_mb"],
        **{name: instances[name] for name in seen},
        free_mb=memory["free_mb"],
        host_free_mb=memory["host_free_mb"],
        node=gpus["node"],
        memory_mb=gpus["memory_mb"],
        speed=gpus["speed"],
        sleep_after_s=float(cluster.rules["sleep_after_s"][0]),
        keep_alive_s=float(cluster.rules["keep_alive_s"][0]),
    )


def one_view(view: ClusterView, world: World, b: int) -> ClusterView:
    """Of a view of B environments that of environment b."""
    own = world.agents[b if len(world.agents) > 1 else 0]
    rows = {name: getattr(view, name)[b] for name in ROWS}
    return view._replace(agents=view_of(world.state[b], own, world.settings), **rows)
