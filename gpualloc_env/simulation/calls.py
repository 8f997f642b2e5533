"""The records of tasks, calls and servers, and the lists in which calls stand."""

from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.compiled import inlined
from gpualloc_env.simulation.state import AnyArray, Array

NONE = -1  # no call

TASK = np.dtype(
    [  # (B, M), in the order of their arrival
        ("time", np.float64),  # [s] of its arrival
        ("finished", np.float64),  # [s] when its last call was; inf until then
        ("first", np.int32),  # its first call
        ("after", np.int32),  # the call after its last
        ("next", np.int32),  # the first call of its next stage
        ("left", np.int32),  # calls of its present stage that are not finished
    ],
    align=True,
)

CALL = np.dtype(
    [  # (B, C), task by task and stage by stage
        ("after_s", np.float64),  # [s] from the end of the stage before it, or the task's arrival
        ("issued", np.float64),  # [s]; inf until then, as the next two
        ("first_token", np.float64),  # [s] when its prefill was finished
        ("finished", np.float64),  # [s]
        ("prompt", np.int32),  # [tokens]
        ("output", np.int32),  # [tokens], of which prefill makes the first
        ("agent", np.int32),
        ("stage", np.int32),  # within its task
        ("task", np.int32),
        ("next", np.int32),  # the call that was issued to the same agent after it
        ("behind", np.int32),  # the call that waits behind it at the same server
        (
            "at",
            np.int32,
        ),  # in a cluster the GPU at which it is, to which it goes or where it finished, or NONE
    ],
    align=True,
)

LEDGER = np.dtype(
    [  # (B, N), an agent's calls, wherever they are
        ("calls", np.int64),  # waiting, in prefill and running
        ("waiting", np.int64),  # [calls] whose prefill has not begun
        ("waiting_prompt", np.int64),  # [tokens] of those
        ("held", np.int64),  # [calls] at the agent itself, in a cluster where none of its servers takes them
        ("tail", np.int64),  # the last that was issued, or NONE
        ("oldest", np.int64),  # the first issued that is not known to be finished, or NONE
        ("due", np.int64),  # the first issued that has not come to its service objective, or NONE
        # Sums of the step.
        ("integral", np.float64),  # [calls s] of `calls`
        ("fresh", np.int64),  # [calls] issued as the first stage of their task
        ("issued", np.int64),  # [calls]
        ("served", np.int64),  # [calls] finished
    ],
    align=True,
)

SERVER = np.dtype(
    [  # (B, N K), agent by agent its servers on K GPUs, one where the GPUs are a pool
        ("agent", np.int64),
        ("last", np.float64),  # [s] up to when its work is done
        ("prefill_speed", np.float64),  # [GPU] g, 0 where nothing moves
        ("decode_speed", np.float64),  # f(g)
        ("prefill_left", np.float64),  # [s] of a whole GPU
        ("clock", np.float64),  # [tokens] that a call which has run since the clock started has gained
        ("running", np.int64),  # [calls]
        ("waiting", np.int64),  # [calls] whose prefill has not begun
        ("coming", np.int64),  # [calls] on their way from another node of a cluster
        ("kv_in_use", np.int64),  # [tokens] of the KV cache, Σ (p + o) of those in prefill and running
        ("in_prefill", np.int64),  # the call, or NONE
        ("head", np.int64),  # the first that waits, or NONE
        ("tail", np.int64),  # the last that waits; of no meaning where none does
        ("heap", np.int64),  # where its running calls begin in `Service.running`
    ],
    align=True,
)

KEYED = np.dtype(
    [  # an entry of a heap, the least key first
        ("key", np.float64),
        ("order", np.int32),  # in which entries of the same key were added
        ("call", np.int32),
    ]
)

RUN = np.dtype(
    [  # (B,)
        ("tasks", np.int64),  # M of the episode
        ("calls", np.int64),  # C of the episode
        ("places", np.int64),  # R of the episode, calls that all servers together can run
        ("next_task", np.int64),  # the first that has not arrived
        ("pending", np.int64),  # calls that wait for their `after_s` to pass
        ("order", np.int64),  # of the next entry of a heap
        ("present", np.int64),  # tasks that have arrived and are not finished
        ("integral", np.float64),  # [tasks s] of `present`, over the step
    ],
    align=True,
)


class Service(NamedTuple):
    """The arrays of B environments whose agents serve calls; rows have the length of the longest."""

    run: AnyArray  # (B,) of RUN
    tasks: AnyArray  # (B, M) of TASK
    calls: AnyArray  # (B, C) of CALL
    ledgers: AnyArray  # (B, N) of LEDGER
    servers: AnyArray  # (B, N K) of SERVER
    event: Array  # (B, N K) [s] when a server's next call will be through prefill or finished
    soonest: Array  # (B, N) [s] the least of an agent's servers
    running: AnyArray  # (B, R) of KEYED: heaps of the calls that run, by the clock at which they finish
    pending: AnyArray  # (B, C) of KEYED: a heap of the calls to be issued, or on their way, by the time

    def widened(self, tasks: int, calls: int, places: int) -> "Service":
        """The same with capacity for at least so many tasks, calls and calls that run in each environment."""
        rows = {"tasks": tasks, "calls": calls, "running": places, "pending": calls}
        return self._replace(**{name: _widened(getattr(self, name), most) for name, most in rows.items()})


class Tasks(NamedTuple):
    """The tasks of an episode; calls stand task by task and stage by stage."""

    time: Array  # (M,) [s] of arrival
    first: AnyArray  # (M + 1,) first call of each task
    agent: AnyArray  # (C,) index
    stage: AnyArray  # (C,) from 0 in each task
    prompt: AnyArray  # (C,) [tokens]
    output: AnyArray  # (C,) [tokens]
    after_s: Array  # (C,) [s] from the end of the stage before, or the task's arrival, to the call's issue


def new_service(num_envs: int, agents: int, gpus: int = 1) -> Service:
    """Arrays for agents with a server on each of some GPUs, and for a task and a call."""
    service = Service(
        run=np.zeros(num_envs, RUN),
        tasks=np.empty((num_envs, 1), TASK),
        calls=np.empty((num_envs, 1), CALL),
        ledgers=np.zeros((num_envs, agents), LEDGER),
        servers=np.zeros((num_envs, agents * gpus), SERVER),
        event=np.full((num_envs, agents * gpus), np.inf),
        soonest=np.full((num_envs, agents), np.inf),
        running=np.empty((num_envs, 1), KEYED),
        pending=np.empty((num_envs, 1), KEYED),
    )
    service.servers["agent"] = np.repeat(np.arange(agents), gpus)
    for name in ("in_prefill", "head"):
        service.servers[name] = NONE
    for name in ("tail", "oldest", "due"):
        service.ledgers[name] = NONE
    return service


def _widened(rows: AnyArray, least: int) -> AnyArray:
    """Rows, (B, n), with capacity for at least so many, and a tenth more lest the next episode asks again."""
    if rows.shape[1] >= least:
        return rows
    wide = np.empty((len(rows), least + least // 10), rows.dtype)
    wide[:, : rows.shape[1]] = rows
    return wide


def row_of(service: Service, b: int) -> Tasks:
    """The tasks of environment b."""
    run = service.run[b]
    tasks, calls = service.tasks[b, : run["tasks"]], service.calls[b, : run["calls"]]
    columns = {name: calls[name].copy() for name in ("agent", "stage", "prompt", "output", "after_s")}
    return Tasks(time=tasks["time"].copy(), first=np.append(tasks["first"], len(calls)), **columns)


BYTES_PER_TASK = TASK.itemsize
BYTES_PER_CALL = CALL.itemsize + KEYED.itemsize
BYTES_PER_PLACE = KEYED.itemsize


@inlined
def _before(key: float, order: int, other: Any) -> bool:
    """Whether an entry comes before another one."""
    return key < other.key or (key == other.key and order < other.order)


@inlined
def _set(entry: Any, key: float, order: int, call: int) -> None:
    entry.key, entry.order, entry.call = key, order, call


@inlined
def push(heap: AnyArray, count: int, key: float, order: int, call: int) -> None:
    """Add an entry to a heap of so many."""
    place = count
    while place > 0:
        above = heap[(place - 1) >> 1]
        if not _before(key, order, above):
            break
        _set(heap[place], above.key, above.order, above.call)
        place = (place - 1) >> 1
    _set(heap[place], key, order, call)


@inlined
def pop(heap: AnyArray, count: int) -> int:
    """Take the first entry from a heap of so many, and put its call into the place that becomes free."""
    last = count - 1
    first, key, order, call = heap[0].call, heap[last].key, heap[last].order, heap[last].call
    place, below = 0, 1
    while below < last:
        if below + 1 < last and _before(heap[below + 1].key, heap[below + 1].order, heap[below]):
            below += 1
        if _before(key, order, heap[below]):
            break
        _set(heap[place], heap[below].key, heap[below].order, heap[below].call)
        place, below = below, 2 * below + 1
    _set(heap[place], key, order, call)
    heap[last].call = first
    return first


@inlined
def start_server(server: Any, heap: int) -> None:
    """Empty a server whose running calls will stand from `heap` on."""
    server.prefill_left = server.clock = 0.0
    server.running = server.waiting = server.coming = server.kv_in_use = 0
    server.in_prefill = server.head = server.tail = NONE
    server.heap = heap


@inlined
def start_ledger(ledger: Any) -> None:
    """Forget the calls of an agent."""
    ledger.calls = ledger.waiting = ledger.waiting_prompt = ledger.held = 0
    ledger.tail = ledger.oldest = ledger.due = NONE
