"""What a policy sees: `View` in raw units, and the same information as the observation in [0, 1]."""

from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.compiled import compiled, inlined, shared
from gpualloc_env.state import (
    AGENT_COLUMNS,
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
    SETTINGS,
    SLICE,
    SLO_S,
    STATE_COLUMNS,
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
    a, b, c, d = features[0], features[1], features[2], features[3]
    e, f, g, h = features[4], features[5], features[6], features[7]
    i, j, k, m = features[8], features[9], features[10], features[11]
    row[7], row[8], row[9], row[10] = a, b, c, d
    row[11], row[12], row[13], row[14] = e, f, g, h
    row[15], row[16], row[17], row[18] = i, j, k, m


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
def encode_agent(
    state: AnyArray, agent: AnyArray, features: AnyArray, settings: AnyArray, row: AnyArray
) -> None:
    """Write the observation of one agent, (F,), from its columns and from `encode_parameters`' features."""
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
    put_parameters(features, row)


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


# Fields of a view in its order: the state and the parameters stand in the order of their columns.
_SEEN, _KNOWN = OLDEST_AGE + 1, SLO_S + 1
_SETTINGS = [DT, GPUS, MAX_SHARE, SLICE, REALLOCATION_S, DEADBAND, KEEP_ALIVE_S]


def pack(view: View, shape: tuple[int, int]) -> tuple[Array, Array, Array]:
    """The state, the agents' parameters and the settings of a view: `view_of` undone.

    Args:
        view: each of its fields is an array that fits `shape`, or a number.
        shape: (B, N).
    """
    state, agents = np.zeros((*shape, STATE_COLUMNS)), np.zeros((*shape, AGENT_COLUMNS))
    settings = np.zeros(SETTINGS)
    fields = np.empty((_SEEN + _KNOWN, *shape))
    for k in range(_SEEN + _KNOWN):
        fields[k] = view[k]
    state[:, :, :_SEEN] = fields[:_SEEN].transpose(1, 2, 0)
    agents[:, :, :_KNOWN] = fields[_SEEN:].transpose(1, 2, 0)
    settings[_SETTINGS] = view[_SEEN + _KNOWN :]
    return state, agents, settings


def encode_packed(state: Array, agents: Array, settings: Array) -> AnyArray:
    """The observations of packed arrays, (B, N, F)."""
    observation = np.empty((*state.shape[:2], len(OBSERVATION_FEATURES)), dtype=np.float32)
    _encode_all(state, agents, settings, empty_features(state.shape[1:2]), observation)
    return observation


@compiled
def _encode_all(
    state: AnyArray, agents: AnyArray, settings: AnyArray, features: AnyArray, observation: AnyArray
) -> None:
    for b in range(observation.shape[0]):
        encode_parameters(agents[b], settings, features)
        for i in range(observation.shape[1]):
            encode_agent(state[b, i], agents[b, i], features[i], settings, observation[b, i])


def observe(view: View) -> AnyArray:
    """The observation of a view: (N, F) or (B, N, F) float32 in [0, 1], columns OBSERVATION_FEATURES."""
    shape = view.queue.shape
    observation = encode_packed(*pack(view, (shape[0] if len(shape) == 2 else 1, shape[-1])))
    return observation.reshape(*shape, -1)
