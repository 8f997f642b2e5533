"""What a policy sees: `View` in raw units, and the same information as the observation in [0, 1]."""

from typing import NamedTuple

import numpy as np

from gpualloc_env.compiled import compiled
from gpualloc_env.state import (
    COLD_START_S,
    DEADBAND,
    DT,
    GPUS,
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
    SHARE,
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
    """View of packed arrays, (B, rows, N) for a batch or (rows, N) for one environment."""
    return View(
        state[..., QUEUE, :],
        state[..., INFLOW, :],
        state[..., RATE, :],
        state[..., SHARE, :],
        state[..., IDLE, :],
        state[..., LOADING, :],
        state[..., OLDEST_AGE, :],
        agents[..., THROUGHPUT, :],
        agents[..., KAPPA, :],
        agents[..., MIN_SHARE, :],
        agents[..., PRIORITY, :],
        agents[..., COLD_START_S, :],
        agents[..., SLO_S, :],
        settings[DT],
        settings[GPUS],
        settings[MAX_SHARE],
        settings[SLICE],
        settings[REALLOCATION_S],
        settings[DEADBAND],
        settings[KEEP_ALIVE_S],
    )


compiled_view_of = compiled(view_of)

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


@compiled
def encode_constants(view: View, observation: AnyArray) -> None:
    """Write the columns that last for the episode: parameters of the agents and the platform."""
    batch, agents = view.queue.shape
    for b in range(batch):
        for i in range(agents):
            row = observation[b, i]
            kappa = view.kappa[b, i]
            row[7] = _squash(0.02 * view.throughput[b, i], 1.0)
            row[8] = 1.0 if kappa == 0.0 else _squash(kappa, 1.0)
            row[9] = view.min_share[b, i]
            row[10] = 1.0 / view.priority[b, i]
            row[11] = _squash(view.cold_start[b, i], 1.0)
            row[12] = _squash(view.slo[b, i], 1.0)
            row[13] = _squash(view.gpus, 1.0)
            row[14] = _squash(view.dt, 1.0)
            row[15] = min(1.0, view.reallocation_s / view.dt)
            row[16] = min(1.0, view.deadband)
            row[17] = _squash(view.max_share, 1.0)
            row[18] = min(1.0, view.slice)


@compiled
def encode_state(view: View, observation: AnyArray) -> None:
    """Write the columns that change with every step."""
    batch, agents = view.queue.shape
    held = 1.0 / view.gpus
    idled = 1.0 / max(view.keep_alive_s, view.dt)
    for b in range(batch):
        for i in range(agents):
            row = observation[b, i]
            base = view.throughput[b, i]
            row[0] = _squash(view.queue[b, i], base)
            row[1] = _squash(view.inflow[b, i], base * view.dt)
            row[2] = _squash(view.rate[b, i], base)
            row[3] = min(1.0, view.share[b, i] * held)
            row[4] = min(1.0, view.idle[b, i] * idled)
            loading, age = view.loading[b, i], view.oldest_age[b, i]
            row[5] = _squash(loading, 1.0) if loading > 0.0 else 0.0
            row[6] = _squash(age, view.slo[b, i]) if age > 0.0 else 0.0


@compiled
def _squash(value: float, unit: float) -> float:
    """Map x = value / unit from [0, ∞) to [0, 1): x / (1 + x)."""
    return value / (unit + value)


def observe(view: View) -> AnyArray:
    """The observation of a view: (N, F) or (B, N, F) float32 in [0, 1], columns OBSERVATION_FEATURES."""
    batched = View._make((*(np.atleast_2d(field) for field in view[:13]), *view[13:]))
    observation = np.empty((*batched.queue.shape, len(OBSERVATION_FEATURES)), dtype=np.float32)
    encode_constants(batched, observation)
    encode_state(batched, observation)
    return observation.reshape(*view.queue.shape, -1)
