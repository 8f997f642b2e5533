"""What a policy sees: `View` in raw units, and the same information as the observation in [0, 1]."""

from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.compiled import compiled, inlined, shared
from gpualloc_env.simulation.state import (
    AGENT,
    OBSERVATION,
    SETTINGS,
    STATE,
    AnyArray,
    Array,
    names_of,
    plain,
)


class View(NamedTuple):
    """The state after the arrivals, before the decision, in raw units.

    Arrays are (N,) in the single environment and (B, N) in a batch. They are live: the next
    step overwrites them, so copy what must last. They cannot be written to.
    """

    queue: Array  # [requests] waiting, this step's arrivals included
    inflow: Array  # [requests] that arrived at the start of this step
    rate: Array  # [requests/s] smoothed arrival rate, time constant 10 s
    share: Array  # [GPU] held during the last step
    idle: Array  # [s] since the agent last held a share
    loading: Array  # [s] still needed to load the model; 0 when warm
    oldest_age: Array  # [s] age of the oldest waiting request
    running: Array  # fraction of the batch's places in which calls run; 0 in the fluid, as the next three
    waiting: Array  # [calls] whose prefill has not begun
    prefill: Array  # [s] of a whole GPU that their prefill will take
    kv_used: Array  # fraction of the KV cache that is taken
    throughput: Array  # [requests/s] T on one whole GPU
    kappa: Array  # [GPU] of the saturating curve; 0 where throughput is linear
    min_share: Array  # [GPU] R
    priority: Array  # P
    cold_start: Array  # [s]
    slo: Array  # [s]
    iteration: Array  # [s] a of a + c·b, an iteration of a batch of b calls; 0 in the fluid, as the next two
    iteration_per_call: Array  # [s] c
    prefill_per_token: Array  # [s] e, of a whole GPU
    dt: float  # [s]
    gpus: float  # [GPU] G
    max_share: float  # [GPU] that one agent can hold
    slice: float  # [GPU] granularity; 0 where shares are continuous
    reallocation_s: float  # [s] lost when a share changes
    deadband: float  # [GPU] of change that costs nothing
    keep_alive_s: float  # [s] idle before a model is unloaded


def _seen(records: np.dtype[Any]) -> tuple[str, ...]:
    return tuple(name for name in names_of(records) if name in View._fields)


STATE_FIELDS, AGENT_FIELDS, SETTING_FIELDS = _seen(STATE), _seen(AGENT), _seen(SETTINGS)
"""Columns of the records that a policy sees: the fields of a view, in its order."""
ARRAY_FIELDS = STATE_FIELDS + AGENT_FIELDS
"""Fields of a view that hold a number for each agent; the others are settings of the platform."""


def read_only(array: AnyArray) -> AnyArray:
    """The same numbers, live, in an array that cannot be written to."""
    seen = array.view()
    seen.flags.writeable = False
    return seen


def view_of(state: AnyArray, agents: AnyArray, settings: AnyArray) -> View:
    """View of records, (B, N) for a batch or (N,) for one environment, and of settings, (1,).

    Its arrays cannot be written to: a policy that computes in place must not change the environment.
    """
    state, agents = read_only(state), read_only(agents)
    return View._make(
        (
            *(state[name] for name in STATE_FIELDS),
            *(agents[name] for name in AGENT_FIELDS),
            *(float(settings[name][0]) for name in SETTING_FIELDS),
        )
    )


OBSERVATION_FEATURES = names_of(OBSERVATION)
"""Columns of the observation. Those without a natural bound enter as x / (1 + x)."""


@inlined
def squash(value: float, unit: float) -> float:
    """Map x = value / unit from [0, ∞) to [0, 1): x / (1 + x)."""
    return np.float32(value) / np.float32(unit + value)  # pyright: ignore[reportReturnType]


@inlined
def encode_agent(agent: Any, settings: Any) -> None:
    """Write what lasts for an episode of an agent's row of the observation, from AGENT and SETTINGS."""
    row = agent.observed
    row.throughput = squash(0.02 * agent.throughput, 1.0)
    row.kappa = 1.0 if agent.kappa == 0.0 else squash(agent.kappa, 1.0)
    row.min_share = agent.min_share
    row.priority = 1.0 / agent.priority
    row.cold_start = squash(agent.cold_start, 1.0)
    row.slo = squash(agent.slo, 1.0)
    row.gpus = squash(settings.gpus, 1.0)
    row.dt = squash(settings.dt, 1.0)
    row.reallocation = min(1.0, settings.reallocation_s / settings.dt)
    row.deadband = min(1.0, settings.deadband)
    row.max_share = squash(settings.max_share, 1.0)
    row.slice = min(1.0, settings.slice)
    row.iteration = squash(agent.iteration, 0.01)
    # An iteration that takes no time whatever the batch has no slope.
    per_call = agent.iteration_per_call
    row.batch_slope = squash(per_call, agent.iteration) if per_call > 0.0 else 0.0
    row.prefill_per_token = squash(agent.prefill_per_token, 1e-4)


@inlined
def encode(now: Any, agent: Any, settings: Any, rows: AnyArray, b: int, i: int) -> None:
    """Write an agent's row of the observation, rows[b, i], from STATE, AGENT and SETTINGS.

    What lasts is ready in AGENT. The columns of servers of calls are zeros there; `encode_calls` writes them.
    """
    rows[b, i] = agent.observed
    row = rows[b, i]
    row.queue = squash(now.queue, agent.throughput)
    row.inflow = squash(now.inflow, agent.throughput * settings.dt)
    row.rate = squash(now.rate, agent.throughput)
    row.share = min(1.0, now.share * settings.per_gpu)
    row.idle = min(1.0, now.idle * settings.per_keep_alive)
    row.loading = squash(now.loading, 1.0)
    row.oldest_age = squash(now.oldest_age, agent.slo)


@inlined
def encode_calls(now: Any, agent: Any, settings: Any, rows: AnyArray, b: int, i: int) -> None:
    """`encode`, and the columns that servers of calls alone have."""
    encode(now, agent, settings, rows, b, i)
    row = rows[b, i]
    row.running = now.running
    row.waiting = squash(now.waiting, 1.0)
    row.prefill = squash(now.prefill, 1.0)
    row.kv_used = now.kv_used


@compiled
def encode_agents(agents: AnyArray, settings: AnyArray) -> None:
    """`encode_agent` for (B, N) of AGENT."""
    for b in range(agents.shape[0]):
        for i in range(agents.shape[1]):
            encode_agent(agents[b, i], settings[0])


NEAREST_TO_ONE = 2.0**-24  # an x too large for float32's x / (1 + x) to tell from infinity
RESOLUTION = 1e-6  # [GPU] more than float32 leaves unknown of a share held


@shared
def unbounded(squashed: Any) -> Any:
    """Undo y = x / (1 + x), for a number or an array."""
    return squashed / np.maximum(1.0 - squashed, NEAREST_TO_ONE)


class Packed(NamedTuple):
    """The numbers of a view as compiled code reads them: B is 1 where the view's arrays are (N,)."""

    state: AnyArray  # (B, N) of STATE
    agents: AnyArray  # (B, N) of AGENT
    settings: AnyArray  # (1,) of SETTINGS


def pack(view: View) -> Packed:
    """The numbers of a view whose arrays have one shape, (N,) or (B, N).

    Raises:
        ValueError: the shapes differ.
    """
    shape = np.shape(view.queue)
    rows = shape if len(shape) == 2 else (1, *shape)
    packed = Packed(np.empty(rows, STATE), np.empty(rows, AGENT), np.empty(1, SETTINGS))
    columns = (
        *((packed.state, name) for name in STATE_FIELDS),
        *((packed.agents, name) for name in AGENT_FIELDS),
    )
    for (records, name), given in zip(columns, view, strict=False):
        values: AnyArray = np.asarray(given)
        if values.shape != shape:
            raise ValueError(f"{name} has shape {values.shape}, queue has {shape}")
        records[name] = values
    for name, value in zip(SETTING_FIELDS, view[len(ARRAY_FIELDS) :], strict=True):
        packed.settings[name] = value
    return packed


def packed_from(arrays: AnyArray, settings: AnyArray) -> Packed:
    """The packed view of the numbers of its fields, in their order: (fields, B, N) and (settings,)."""
    packed = Packed(
        np.empty(arrays.shape[1:], STATE), np.empty(arrays.shape[1:], AGENT), np.empty(1, SETTINGS)
    )
    columns, states = arrays.transpose(1, 2, 0), len(STATE_FIELDS)
    # The fields of a view are the first columns of the records of agents.
    plain(packed.state)[..., :states] = columns[..., :states]
    plain(packed.agents)[..., : len(AGENT_FIELDS)] = columns[..., states:]
    for name, value in zip(SETTING_FIELDS, settings.tolist(), strict=True):
        packed.settings[name] = value
    return packed


@compiled
def derive(settings: AnyArray) -> None:
    """Write the columns of settings, (1,), that follow from the others."""
    one = settings[0]
    one.per_dt, one.per_gpu = 1.0 / one.dt, 1.0 / one.gpus
    one.per_keep_alive = 1.0 / max(one.keep_alive_s, one.dt)


@compiled
def encode_packed(packed: Packed, observation: AnyArray) -> None:
    """Write the observations, (B, N, F), of a packed view."""
    rows = observation.view(OBSERVATION)[:, :, 0]
    derive(packed.settings)
    encode_agents(packed.agents, packed.settings)
    for b in range(observation.shape[0]):
        for i in range(observation.shape[1]):
            encode_calls(packed.state[b, i], packed.agents[b, i], packed.settings[0], rows, b, i)


def observed(packed: Packed) -> AnyArray:
    """The observations of a packed view, (B, N, F) float32."""
    observation = np.empty((*packed.state.shape, len(OBSERVATION_FEATURES)), dtype=np.float32)
    encode_packed(packed, observation)
    return observation


def observe(view: View) -> AnyArray:
    """The observation of a view: (N, F) or (B, N, F) float32 in [0, 1], columns OBSERVATION_FEATURES."""
    return observed(pack(view)).reshape(*np.shape(view.queue), -1)
