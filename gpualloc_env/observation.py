"""What a policy sees: `View` in raw units, and the same information as the observation in [0, 1]."""

from typing import Any, NamedTuple

import numpy as np
from numba.np.unsafe.ndarray import to_fixed_tuple  # pyright: ignore

from gpualloc_env.compiled import compiled, inlined, shared
from gpualloc_env.state import (
    COLD_START_S,
    DEADBAND,
    DT,
    GPUS,
    HELD,
    IDLE,
    INFLOW,
    KAPPA,
    KEEP_ALIVE_S,
    LOADING,
    MAX_SHARE,
    MIN_SHARE,
    OLDEST_AGE,
    PRIORITY,
    QUEUE,
    RATE,
    REALLOCATION_S,
    SLICE,
    SLO_S,
    THROUGHPUT,
    AnyArray,
    Array,
)


class View(NamedTuple):
    """The state after the arrivals, before the decision, in raw units.

    Arrays are (N,) in the single environment and (B, N) in a batch. They are live: the next
    step overwrites them, so copy what must last.
    """

    queue: Array  # [requests] waiting, this step's arrivals included
    inflow: Array  # [requests] that arrived at the start of this step
    rate: Array  # [requests/s] smoothed arrival rate, time constant 10 s
    share: Array  # [GPU] held during the last step
    idle: Array  # [s] since the agent last held a share
    loading: Array  # [s] still needed to load the model; 0 when warm
    oldest_age: Array  # [s] age of the oldest waiting request
    throughput: Array  # [requests/s] T on one whole GPU
    kappa: Array  # [GPU] of the saturating curve; 0 where throughput is linear
    min_share: Array  # [GPU] R
    priority: Array  # P
    cold_start: Array  # [s]
    slo: Array  # [s]
    dt: float  # [s]
    gpus: float  # [GPU] G
    max_share: float  # [GPU] that one agent can hold
    slice: float  # [GPU] granularity; 0 where shares are continuous
    reallocation_s: float  # [s] lost when a share changes
    deadband: float  # [GPU] of change that costs nothing
    keep_alive_s: float  # [s] idle before a model is unloaded


def view_of(state: AnyArray, agents: AnyArray, settings: AnyArray) -> View:
    """View of packed arrays, (B, N, columns) for a batch or (N, columns) for one environment."""
    return View(
        state[..., QUEUE],
        state[..., INFLOW],
        state[..., RATE],
        state[..., HELD],
        state[..., IDLE],
        state[..., LOADING],
        state[..., OLDEST_AGE],
        agents[..., THROUGHPUT],
        agents[..., KAPPA],
        agents[..., MIN_SHARE],
        agents[..., PRIORITY],
        agents[..., COLD_START_S],
        agents[..., SLO_S],
        settings[DT],
        settings[GPUS],
        settings[MAX_SHARE],
        settings[SLICE],
        settings[REALLOCATION_S],
        settings[DEADBAND],
        settings[KEEP_ALIVE_S],
    )


OBSERVATION_FEATURES = (
    "queue",  # time to serve it on one whole GPU, q/T [s]
    "inflow",  # GPUs that would serve it within the step, inflow/(T dt)
    "rate",  # GPUs that would keep up with it, rate/T
    "share",  # fraction of the platform held
    "idle",  # fraction of the keep-alive time that has passed
    "loading",  # [s]
    "oldest_age",  # as a multiple of the service objective
    "throughput",  # [requests in 20 ms]
    "kappa",  # [GPU]; 1 where throughput is linear
    "min_share",  # [GPU]
    "priority",  # weight 1/P
    "cold_start",  # [s]
    "slo",  # [s]
    "gpus",  # [GPU]
    "dt",  # [s]
    "reallocation",  # fraction of a step lost when a share changes
    "deadband",  # [GPU] of change that costs nothing
    "max_share",  # [GPU]
    "slice",  # [GPU]; 0 where shares are continuous
)
"""Columns of the observation. Those without a natural bound enter as x / (1 + x)."""


STATE_FEATURES = 7
"""The first columns change with every step, the others last for the episode."""
PARAMETER_FEATURES = len(OBSERVATION_FEATURES) - STATE_FEATURES


def empty_features(shape: tuple[int, ...]) -> AnyArray:
    """Room for what `encode_parameters` writes: (B, N, F − STATE_FEATURES) float32 for a shape (B, N)."""
    return np.empty((*shape, PARAMETER_FEATURES), dtype=np.float32)


@compiled
def encode_parameters(agents: AnyArray, settings: AnyArray, features: AnyArray) -> None:
    """Write the columns of one environment that last for the episode, (N, F − STATE_FEATURES)."""
    for i in range(features.shape[0]):
        row, kappa = features[i], agents[i, KAPPA]
        row[0] = _squash(0.02 * agents[i, THROUGHPUT], 1.0)
        row[1] = 1.0 if kappa == 0.0 else _squash(kappa, 1.0)
        row[2] = agents[i, MIN_SHARE]
        row[3] = 1.0 / agents[i, PRIORITY]
        row[4] = _squash(agents[i, COLD_START_S], 1.0)
        row[5] = _squash(agents[i, SLO_S], 1.0)
        row[6] = _squash(settings[GPUS], 1.0)
        row[7] = _squash(settings[DT], 1.0)
        row[8] = min(1.0, settings[REALLOCATION_S] / settings[DT])
        row[9] = min(1.0, settings[DEADBAND])
        row[10] = _squash(settings[MAX_SHARE], 1.0)
        row[11] = min(1.0, settings[SLICE])


@inlined
def put_parameters(features: AnyArray, row: AnyArray) -> None:
    """Write the columns of one agent that last for the episode behind those that change."""
    # All are read before any is written, so that they are moved in a few vector instructions.
    columns: tuple[float, ...] = to_fixed_tuple(features, PARAMETER_FEATURES)  # pyright: ignore
    for k in range(PARAMETER_FEATURES):
        row[STATE_FEATURES + k] = columns[k]


@inlined
def state_features(
    queue: float,
    inflow: float,
    rate: float,
    held: float,
    idle: float,
    loading: float,
    oldest_age: float,
    throughput: float,
    slo_s: float,
    per_gpu: float,
    per_keep_alive: float,
    dt: float,
) -> tuple[float, float, float, float, float, float, float]:
    """The columns of one agent that change with every step, in their order.

    `per_gpu` is 1 / G, `per_keep_alive` 1 / keep-alive time, which counts as one step at least.
    """
    return (
        _squash(queue, throughput),
        _squash(inflow, throughput * dt),
        _squash(rate, throughput),
        _at_most_one(held * per_gpu),
        _at_most_one(idle * per_keep_alive),
        _squash(loading, 1.0),
        _squash(oldest_age, slo_s),
    )


@inlined
def encode_state(state: AnyArray, agent: AnyArray, settings: AnyArray, row: AnyArray) -> None:
    """Write the columns of one agent that change with every step, from its state and its parameters."""
    row[0], row[1], row[2], row[3], row[4], row[5], row[6] = state_features(
        state[QUEUE],
        state[INFLOW],
        state[RATE],
        state[HELD],
        state[IDLE],
        state[LOADING],
        state[OLDEST_AGE],
        agent[THROUGHPUT],
        agent[SLO_S],
        1.0 / settings[GPUS],
        1.0 / max(settings[KEEP_ALIVE_S], settings[DT]),
        settings[DT],
    )


@inlined
def _at_most_one(value: float) -> float:
    return 1.0 if value > 1.0 else value


@inlined
def _squash(value: float, unit: float) -> float:
    """Map x = value / unit from [0, ∞) to [0, 1): x / (1 + x)."""
    return float(np.float32(value) / np.float32(unit + value))


_NEAREST_TO_ONE = 2.0**-24  # an x too large for float32's x / (1 + x) to tell from infinity


@shared
def unbounded(squashed: Any) -> Any:
    """Undo y = x / (1 + x), for a number or an array."""
    return squashed / np.maximum(1.0 - squashed, _NEAREST_TO_ONE)


ARRAYS = View._fields.index("dt")
"""Fields of a view that hold a number for each agent; the others are settings of the platform."""
# Their first stand in the order of the state's columns, the others in that of the agents' parameters.
PARAMETERS = OLDEST_AGE + 1


class Packed(NamedTuple):
    """The numbers of a view as compiled code reads them."""

    fields: Array  # (ARRAYS, B, N) in the order of the view
    settings: Array  # (settings,) likewise, which is that of `gpualloc_env.state`


def pack(view: View) -> Packed:
    """The numbers of a view whose arrays have one shape: B is 1 where they are (N,).

    Raises:
        ValueError: the shapes differ.
    """
    fields, settings = np.array(view[:ARRAYS], dtype=np.float64), np.array(view[ARRAYS:], dtype=np.float64)
    return Packed(fields[:, None] if fields.ndim == 2 else fields, settings)


@compiled
def encode(fields: AnyArray, settings: AnyArray, observation: AnyArray) -> None:
    """Write the observations, (B, N, F), of a packed view."""
    for b in range(observation.shape[0]):
        encode_parameters(fields[PARAMETERS:, b].T, settings, observation[b, :, STATE_FEATURES:])
        for i in range(observation.shape[1]):
            agent = fields[PARAMETERS:, b, i]
            encode_state(fields[:, b, i], agent, settings, observation[b, i])


def empty_observation(packed: Packed) -> AnyArray:
    """Room for the observations of a packed view, (B, N, F) float32."""
    return np.empty((*packed.fields.shape[1:], len(OBSERVATION_FEATURES)), dtype=np.float32)


def observe(view: View) -> AnyArray:
    """The observation of a view: (N, F) or (B, N, F) float32 in [0, 1], columns OBSERVATION_FEATURES."""
    packed = pack(view)
    observation = empty_observation(packed)
    encode(*packed, observation)
    return observation.reshape(*view.queue.shape, -1)
