"""Receding-horizon control: a programme over the next steps, solved anew in every step.

`baselines.receding_horizon` plays it as it is; a learned allocator corrects what it assumes.
"""

from math import exp, floor, nan
from typing import NamedTuple

import numpy as np

from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, speedup
from gpualloc_env.simulation.fluid import serve
from gpualloc_env.simulation.observation import (
    OBSERVATION_FEATURES,
    PARAMETERS,
    Packed,
    View,
    pack,
    unbounded,
)
from gpualloc_env.simulation.state import (
    DEADBAND,
    DT,
    GPUS,
    HELD,
    INFLOW,
    KAPPA,
    LOADING,
    MAX_SHARE,
    PRIORITY,
    QUEUE,
    RATE,
    REALLOCATION_S,
    SLICE,
    THROUGHPUT,
    AnyArray,
    Array,
)


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
def predict_backlogs(
    queue: float,
    inflow: float,
    persistence: float,
    rates: AnyArray,
    delays: AnyArray,
    dt: float,
    later_dt: float,
    steps: int,
    terminal: float,
    queues: AnyArray,
    backlogs: AnyArray,
) -> None:
    """Write the backlog of an agent at each of (K,) service rates, by the fluid model of the environment.

    The first step lasts `dt`, the others `later_dt`. Service starts after a delay, (K,), which is used
    up. The first step's arrivals are in the queue already; at the start of the next `inflow` requests
    join, and from then on `persistence` times as many as the step before. `queues` is room for (K,).

    A backlog is ∫ q dt over the steps, plus `terminal` q² for the queue at their end [requests s]; it is
    convex and falling in the rate.
    """
    length, joining = dt, queue
    queues[:], backlogs[:] = 0.0, 0.0
    for step in range(steps):
        # The rates side by side, so that several are worked on in one vector instruction.
        for k in range(rates.shape[0]):
            queue = queues[k] + joining
            wait = min(delays[k], length)
            delays[k] -= wait
            _, served, integral = serve(queue, rates[k], wait, length)
            backlogs[k] += integral
            queues[k] = queue - served
        length = later_dt
        joining = inflow if step == 0 else joining * persistence
    for k in range(rates.shape[0]):
        backlogs[k] += terminal * queues[k] * queues[k]


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
    options: AnyArray,
    room: AnyArray,
    shares: AnyArray,
) -> None:
    """Write the planned fractions of one environment, (N,).

    `seen` is what it is planned from, (_SEEN, N), `constants` are in the order of `Constants`,
    `corrections` are (N, CORRECTIONS). `options` is room for N + 3 rows of what an agent can choose
    from, shares that cost no reallocation and then levels, `room` for (_KEEP + 2, N) numbers.
    """
    horizon_s, inflow_weight, persistence = constants[0], constants[1], constants[2]
    terminal, bill, standby = constants[3], constants[4], constants[5]
    queue, inflow, rate, throughput = seen[0], seen[1], seen[2], seen[3]
    kappa, weights, held, loading = seen[4], seen[5], seen[6], seen[7]
    count = shares.shape[0]
    kept, moved = options[:count, :_KEEP], options[:count, _KEEP:]
    kept_share, moves, costs = room[:_KEEP].T, room[_KEEP], room[_KEEP + 1]
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
    choices = _KEEP + levels + 1
    rates, delays, queues = (
        options[count, :choices],
        options[count + 1, :choices],
        options[count + 2, :choices],
    )
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
        for k in range(_KEEP):
            share = min(most, max(least, held[i] + (1 - k) * drift))
            kept_share[i, k], rates[k] = share, base * speedup(share, kappa[i])
            delays[k] = loading[i] + (change_s if abs(share - held[i]) > deadband else 0.0)
        for level in range(levels + 1):
            share = least + level * quantum
            rates[_KEEP + level] = base * speedup(share, kappa[i])
            delays[_KEEP + level] = loading[i] + (change_s if share > 0.0 else 0.0)
        predict_backlogs(
            queue[i],
            expected,
            lasting,
            rates,
            delays,
            dt,
            later_dt,
            steps,
            terminal / base,
            queues,
            options[i, : rates.shape[0]],
        )
        for k in range(_KEEP):
            kept[i, k] = weight * kept[i, k] + gpu_cost * kept_share[i, k]
        for level in range(levels + 1):
            moved[i, level] = weight * moved[i, level] + gpu_cost * (least + level * quantum)
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


_SEEN = 8  # numbers of an agent that are planned from: those that `_plan_views` copies


@compiled
def _plan_views(
    fields: AnyArray,
    settings: AnyArray,
    constants: AnyArray,
    corrections: AnyArray,
    options: AnyArray,
    room: AnyArray,
    fractions: AnyArray,
) -> None:
    """Write the planned fractions, (B, N), of a packed view."""
    seen = room[:_SEEN]
    for b in range(fractions.shape[0]):
        state, agents = fields[:, b], fields[PARAMETERS:, b]
        for i in range(fractions.shape[1]):
            seen[0, i], seen[1, i], seen[2, i] = state[QUEUE, i], state[INFLOW, i], state[RATE, i]
            seen[3, i], seen[4, i] = agents[THROUGHPUT, i], agents[KAPPA, i]
            seen[5, i], seen[6, i] = 1.0 / agents[PRIORITY, i], state[HELD, i]
            seen[7, i] = state[LOADING, i]
        _plan_row(
            seen,
            settings[DT],
            settings[GPUS],
            min(settings[GPUS], settings[MAX_SHARE]),
            settings[SLICE],
            settings[REALLOCATION_S],
            settings[DEADBAND],
            constants,
            corrections[b],
            options,
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
    options: AnyArray,
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
                options,
                room[_SEEN:],
                shares,
            )
        else:
            for i in range(rows.shape[0]):
                shares[i] = nan


def _room(count: int) -> tuple[Array, Array]:
    """What a plan for so many agents writes to on its way; made anew, so that threads can share a policy."""
    return np.empty((count + 3, _KEEP + _LEVELS + 1)), np.empty((_SEEN + _KEEP + 2, count))


def plan(view: View, constants: Array, corrections: Array | None = None) -> Array:
    """The planned fractions of the platform, shaped as `view.queue`, (N,) or (B, N).

    Args:
        view: what is planned from.
        constants: `Constants` as an array.
        corrections: logarithms of factors, (B, N, CORRECTIONS), or none.
    """
    packed = pack(view)
    if corrections is None:
        corrections = np.zeros((*packed.fields.shape[1:], len(CORRECTIONS)))
    return plan_packed(packed, constants, corrections).reshape(view.queue.shape)


def plan_packed(packed: Packed, constants: Array, corrections: Array) -> Array:
    """What `plan` does, for a packed view: fractions of the platform, (B, N)."""
    shape = packed.fields.shape[1:]
    fractions = np.empty(shape)
    _plan_views(*packed, constants, corrections, *_room(shape[1]), fractions)
    return fractions


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
