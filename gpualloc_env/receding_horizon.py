"""Receding-horizon control: a programme over the next steps, solved anew in every step.

`baselines.receding_horizon` plays it as it is; a learned allocator corrects what it assumes.
"""

from math import exp, floor, nan
from typing import NamedTuple

import numpy as np

from gpualloc_env.allocation import fit
from gpualloc_env.compiled import compiled
from gpualloc_env.curves import speedup
from gpualloc_env.observation import OBSERVATION_FEATURES, View, unbounded
from gpualloc_env.service import serve
from gpualloc_env.state import AnyArray, Array


class Constants(NamedTuple):
    """What the programme assumes of all agents; their meaning is told in `baselines.receding_horizon`."""

    horizon_s: float  # [s]
    inflow_weight: float
    persistence: float  # of the forecast, in a second
    terminal: float
    bill: float
    standby: float  # [GPU]


CORRECTIONS = ("forecast", "decay", "urgency", "reluctance")
"""What may be corrected for each agent: the logarithms of factors on the forecast of its arrivals, on the
rate at which that forecast decays, on its weight, and on the time that a change of its share is thought
to cost. Zeros leave the programme as it is, bit for bit; reluctance makes an agent keep what it holds."""
FORECAST, DECAY, URGENCY, RELUCTANCE = range(len(CORRECTIONS))

_STEPS = 24  # that are predicted at most; a longer horizon has longer steps after the first
_LEVELS = 50  # of a share, evenly from the standby share to all that one agent can hold
_HALVINGS = 40  # of the price's bracket
_KEEP = 3  # shares that cost no reallocation: the held one, and those at the deadband's ends
_ROUNDING = 1e-9  # of the capacity: sums in another order must lead to the same decision


@compiled
def predicted_backlog(
    queue: float,
    inflow: float,
    persistence: float,
    rate: float,
    delay: float,
    dt: float,
    later_dt: float,
    steps: int,
    terminal: float,
) -> float:
    """Backlog of an agent that serves at `rate` for so many steps, by the fluid model of the environment.

    The first step lasts `dt`, the others `later_dt`. Service starts after `delay`. The first step's
    arrivals are in the queue already; at the start of the next `inflow` requests join, and from then
    on `persistence` times as many as the step before.
    Convex and falling in `rate`.

    Returns:
        ∫ q dt over the steps, plus `terminal` q² for the queue at their end [requests s].
    """
    total, length = 0.0, dt
    for step in range(steps):
        if step > 0:
            length = later_dt
            queue += inflow
            inflow *= persistence
        wait = min(delay, length)
        delay -= wait
        _, served, integral = serve(queue, rate, wait, length)
        total += integral
        queue -= served
    return total + terminal * queue * queue


@compiled
def _best_level(costs: AnyArray, levels: int, price: float) -> int:
    """The level at which convex costs plus `price` a level are least."""
    low, high = 0, levels
    while low < high:
        middle = (low + high) // 2
        if costs[middle] - costs[middle + 1] > price:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _respond(
    moved: AnyArray,
    kept: AnyArray,
    kept_share: AnyArray,
    levels: int,
    least: float,
    quantum: float,
    price: float,
    moves: AnyArray,
    costs: AnyArray,
    shares: AnyArray,
) -> float:
    """Each agent's best share at a price of a GPU, whether it moves there, and the sum of all shares."""
    total = 0.0
    for i in range(shares.shape[0]):
        level = _best_level(moved[i], levels, price * quantum)
        shares[i], moves[i] = least + level * quantum, 1.0
        cost = moved[i, level] + price * shares[i]
        for k in range(_KEEP):
            other = kept[i, k] + price * kept_share[i, k]
            if other <= cost:
                shares[i], moves[i], cost = kept_share[i, k], 0.0, other
        costs[i] = cost - price * shares[i]
        total += shares[i]
    return total


@compiled
def _hand_out(
    moved: AnyArray,
    levels: int,
    least: float,
    quantum: float,
    left: float,
    moves: AnyArray,
    costs: AnyArray,
    shares: AnyArray,
) -> None:
    """Give what is left, piece by piece, always where a GPU saves most.

    An agent that moves gets to its next level. One that keeps its share pays for a reallocation
    first, so for it all levels within reach are tried.
    """
    for _ in range(levels * shares.shape[0]):
        if left <= 0.0:
            return
        best, steepest, chosen, cost_there = -1, 0.0, 0.0, 0.0
        for i in range(shares.shape[0]):
            level = floor((shares[i] - least) / quantum + 1e-6) + 1
            last = min(levels, level if moves[i] > 0.0 else floor((shares[i] + left - least) / quantum) + 1)
            while level <= last:
                share, cost = least + level * quantum, moved[i, level]
                if share > shares[i] + left:
                    part = (share - shares[i] - left) / quantum
                    share, cost = shares[i] + left, cost + part * (moved[i, level - 1] - cost)
                slope = (costs[i] - cost) / (share - shares[i])
                if slope > steepest:
                    best, steepest, chosen, cost_there = i, slope, share, cost
                level += 1
        if best < 0:
            return
        left -= chosen - shares[best]
        shares[best], costs[best], moves[best] = chosen, cost_there, 1.0


@compiled
def _plan_row(
    seen: AnyArray,
    dt: float,
    gpus: float,
    most: float,
    slice_: float,
    reallocation_s: float,
    deadband: float,
    constants: AnyArray,
    corrections: AnyArray,
    moved: AnyArray,
    room: AnyArray,
    shares: AnyArray,
) -> None:
    """Write the planned fractions of one environment, (N,).

    `seen` is what it is planned from, (_SEEN, N), `constants` are in the order of `Constants`,
    `corrections` are (N, CORRECTIONS). `moved` is room for (N, _LEVELS + 1) numbers, `room` for
    (2 _KEEP + 2, N).
    """
    horizon_s, inflow_weight, persistence = constants[0], constants[1], constants[2]
    terminal, bill, standby = constants[3], constants[4], constants[5]
    queue, inflow, rate, throughput = seen[0], seen[1], seen[2], seen[3]
    kappa, weights, held, loading = seen[4], seen[5], seen[6], seen[7]
    count = shares.shape[0]
    kept, kept_share = room[:_KEEP].T, room[_KEEP : 2 * _KEEP].T
    moves, costs = room[2 * _KEEP], room[2 * _KEEP + 1]
    steps = max(1, floor(min(float(_STEPS), horizon_s / dt) + 0.5))
    later_dt = (horizon_s - dt) / (steps - 1) if steps > 1 else dt
    persistence = persistence**later_dt
    least, levels = min(standby, 0.5 * min(most, gpus / count)), _LEVELS
    quantum = (most - least) / levels
    # A change within the deadband is free, but must not exceed it by rounding.
    drift = max(0.0, deadband - _ROUNDING)
    if slice_ > 0.0:
        levels = floor(min(float(_LEVELS), most / slice_ + 1e-6))
        least, quantum, drift = 0.0, slice_, 0.0
    offered = 0.0
    for i in range(count):
        offered += rate[i] * weights[i]
    # The objective weighs a second's bill of all GPUs like `bill` seconds of every request's latency.
    gpu_cost = bill * offered / gpus * (dt + (steps - 1) * later_dt)
    steepest = 0.0
    for i in range(count):
        weight, base = weights[i] * exp(corrections[i, URGENCY]), throughput[i]
        expected = (inflow_weight * inflow[i] / dt + (1.0 - inflow_weight) * rate[i]) * later_dt
        expected *= exp(corrections[i, FORECAST])
        lasting = persistence ** exp(corrections[i, DECAY])
        change_s = reallocation_s * exp(corrections[i, RELUCTANCE])
        for level in range(levels + 1):
            share = least + level * quantum
            late = loading[i] + (change_s if share > 0.0 else 0.0)
            speed = base * speedup(share, kappa[i])
            backlog = predicted_backlog(
                queue[i], expected, lasting, speed, late, dt, later_dt, steps, terminal / base
            )
            moved[i, level] = weight * backlog + gpu_cost * share
        for k in range(_KEEP):
            share = min(most, max(least, held[i] + (1 - k) * drift))
            late = loading[i] + (change_s if abs(share - held[i]) > deadband else 0.0)
            speed = base * speedup(share, kappa[i])
            backlog = predicted_backlog(
                queue[i], expected, lasting, speed, late, dt, later_dt, steps, terminal / base
            )
            kept[i, k], kept_share[i, k] = weight * backlog + gpu_cost * share, share
        for level in range(levels):
            steepest = max(steepest, (moved[i, level] - moved[i, level + 1]) / quantum)
        for k in range(_KEEP):
            if kept_share[i, k] > least:
                saving = (moved[i, 0] - kept[i, k]) / (kept_share[i, k] - least)
                steepest = max(steepest, saving)
    limit = gpus * (1.0 + _ROUNDING)
    total = _respond(moved, kept, kept_share, levels, least, quantum, 0.0, moves, costs, shares)
    if total > limit:
        low, high = 0.0, 2.0 * steepest + 1e-300
        for _ in range(_HALVINGS):
            price = 0.5 * (low + high)
            total = _respond(moved, kept, kept_share, levels, least, quantum, price, moves, costs, shares)
            low, high = (price, high) if total > limit else (low, price)
        total = _respond(moved, kept, kept_share, levels, least, quantum, high, moves, costs, shares)
        _hand_out(moved, levels, least, quantum, gpus - total, moves, costs, shares)
    fit(shares, gpus)
    for i in range(count):
        shares[i] /= gpus


_SEEN = 8  # columns of a view that are planned from, in the order of `_plan_views`' arguments


@compiled
def _plan_views(
    queue: AnyArray,
    inflow: AnyArray,
    rate: AnyArray,
    throughput: AnyArray,
    kappa: AnyArray,
    priority: AnyArray,
    held: AnyArray,
    loading: AnyArray,
    dt: float,
    gpus: float,
    most: float,
    slice_: float,
    reallocation_s: float,
    deadband: float,
    constants: AnyArray,
    corrections: AnyArray,
    moved: AnyArray,
    room: AnyArray,
    fractions: AnyArray,
) -> None:
    """Write the planned fractions, (B, N), of the columns of a view, (B, N) each."""
    seen = room[:_SEEN]
    for b in range(queue.shape[0]):
        for i in range(queue.shape[1]):
            seen[0, i], seen[1, i], seen[2, i] = queue[b, i], inflow[b, i], rate[b, i]
            seen[3, i], seen[4, i], seen[5, i] = throughput[b, i], kappa[b, i], 1.0 / priority[b, i]
            seen[6, i], seen[7, i] = held[b, i], loading[b, i]
        _plan_row(
            seen,
            dt,
            gpus,
            most,
            slice_,
            reallocation_s,
            deadband,
            constants,
            corrections[b],
            moved,
            room[_SEEN:],
            fractions[b],
        )


_QUEUE, _INFLOW, _RATE, _SHARE, _LOADING, _THROUGHPUT, _KAPPA, _WEIGHT = (
    OBSERVATION_FEATURES.index(name)
    for name in ("queue", "inflow", "rate", "share", "loading", "throughput", "kappa", "priority")
)
_GPUS, _DT, _REALLOCATION, _DEADBAND, _MAX_SHARE, _SLICE = (
    OBSERVATION_FEATURES.index(name)
    for name in ("gpus", "dt", "reallocation", "deadband", "max_share", "slice")
)


@compiled
def _plan_observations(
    observation: AnyArray,
    constants: AnyArray,
    corrections: AnyArray,
    moved: AnyArray,
    room: AnyArray,
    fractions: AnyArray,
) -> None:
    """Write the planned fractions, (B, N), of observations, (B, N, F), whose columns are undone.

    What no environment shows (a step, platform, throughput or weight of nothing) is not a number.
    """
    seen = room[:_SEEN]
    for b in range(observation.shape[0]):
        rows, shares, sound = observation[b], fractions[b], True
        dt, gpus = unbounded(float(rows[0, _DT])), unbounded(float(rows[0, _GPUS]))
        most = min(gpus, unbounded(float(rows[0, _MAX_SHARE])))
        sound = dt > 0.0 and most > 0.0
        for i in range(rows.shape[0]):
            base = 50.0 * unbounded(float(rows[i, _THROUGHPUT]))
            kappa = float(rows[i, _KAPPA])
            seen[0, i] = unbounded(float(rows[i, _QUEUE])) * base
            seen[1, i] = unbounded(float(rows[i, _INFLOW])) * base * dt
            seen[2, i] = unbounded(float(rows[i, _RATE])) * base
            seen[3, i], seen[4, i] = base, unbounded(kappa) if kappa < 1.0 else 0.0
            seen[5, i] = float(rows[i, _WEIGHT])
            seen[6, i] = float(rows[i, _SHARE]) * gpus
            seen[7, i] = unbounded(float(rows[i, _LOADING]))
            sound = sound and base > 0.0 and seen[5, i] > 0.0
        if sound:
            _plan_row(
                seen,
                dt,
                gpus,
                most,
                float(rows[0, _SLICE]),
                float(rows[0, _REALLOCATION]) * dt,
                float(rows[0, _DEADBAND]),
                constants,
                corrections[b],
                moved,
                room[_SEEN:],
                shares,
            )
        else:
            for i in range(rows.shape[0]):
                shares[i] = nan


def _room(count: int) -> tuple[Array, Array]:
    """What a plan for so many agents writes to on its way; made anew, so that threads can share a policy."""
    return np.empty((count, _LEVELS + 1)), np.empty((_SEEN + 2 * _KEEP + 2, count))


def plan(view: View, constants: Array, corrections: Array | None = None) -> Array:
    """The planned fractions of the platform, shaped as `view.queue`, (N,) or (B, N).

    Args:
        view: what is planned from.
        constants: `Constants` as an array.
        corrections: logarithms of factors, (B, N, CORRECTIONS), or none.
    """
    queue = np.atleast_2d(view.queue)
    if corrections is None:
        corrections = np.zeros((*queue.shape, len(CORRECTIONS)))
    fractions = np.empty(queue.shape)
    _plan_views(
        queue,
        np.atleast_2d(view.inflow),
        np.atleast_2d(view.rate),
        np.atleast_2d(view.throughput),
        np.atleast_2d(view.kappa),
        np.atleast_2d(view.priority),
        np.atleast_2d(view.share),
        np.atleast_2d(view.loading),
        view.dt,
        view.gpus,
        min(view.gpus, view.max_share),
        view.slice,
        view.reallocation_s,
        view.deadband,
        constants,
        corrections,
        *_room(queue.shape[1]),
        fractions,
    )
    return fractions.reshape(view.queue.shape)


def plan_observed(observation: AnyArray, constants: Array, corrections: Array) -> Array:
    """What `plan` would do where only the observation is known, to within the resolution of float32.

    Args:
        observation: (B, N, F), each number in [0, 1].
        constants: `Constants` as an array.
        corrections: logarithms of factors, (B, N, CORRECTIONS).

    Returns:
        Fractions of the platform, (B, N); not numbers where no environment shows such an observation.
    """
    fractions = np.empty(observation.shape[:2])
    _plan_observations(observation, constants, corrections, *_room(observation.shape[1]), fractions)
    return fractions
