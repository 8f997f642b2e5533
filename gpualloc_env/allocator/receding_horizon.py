"""Receding-horizon control: a programme over the next steps, solved anew in every step.

`baselines.online.receding_horizon` plays it as it is; a learned allocator corrects what it assumes.
"""

from collections.abc import Mapping
from math import exp, floor, nan, sqrt
from typing import Any, NamedTuple

import numpy as np

from gpualloc_env.allocator.weights import number
from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.curves import fit, speedup
from gpualloc_env.simulation.fluid import serve
from gpualloc_env.simulation.observation import RESOLUTION, Packed, View, pack, unbounded
from gpualloc_env.simulation.state import OBSERVATION, AnyArray, Array


class Constants(NamedTuple):
    """What the programme assumes of all agents; described in `baselines.online.receding_horizon`."""

    horizon_s: float  # [s]
    inflow_weight: float
    persistence: float  # of the forecast, in a second
    terminal: float
    bill: float
    standby: float  # [GPU]
    full_batch: float = 1.0  # [calls]
    decoding: float = 0.0  # of a full batch's time; 0: the rate does not depend on the batch


def constants_from(base: Mapping[str, Any]) -> Array:
    """Constants by name, as a file holds them, in the order of `Constants`.

    Raises:
        KeyError: one is missing.
        ValueError: one is not a finite number.
    """
    given = {**Constants._field_defaults, **base}
    values = [number(given, name) for name in Constants._fields]
    if not np.isfinite(values).all():
        raise ValueError("the constants of base must be finite")
    return np.array(values)


class Assumed(NamedTuple):
    """What the programme assumes in each of B environments."""

    constants: Array  # (B, C), `Constants`
    corrections: Array  # (B, N, CORRECTIONS)


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

BATCHING = np.dtype(
    [  # a server of n ≤ B calls serves n/(A + C n) of its full rate
        ("alone", np.float64),  # A, the part of a call's time that its batch does not share [calls]; 0: none
        ("shared", np.float64),  # C = 1 − A/B
        ("full", np.float64),  # B [calls]
    ]
)
AGENTS = np.dtype(
    [  # (N,), what is planned from
        ("queue", np.float64),  # [requests]
        ("inflow", np.float64),  # [requests] of this step
        ("rate", np.float64),  # [requests/s] smoothed
        ("throughput", np.float64),  # [requests/s] on one whole GPU
        ("kappa", np.float64),  # [GPU]
        ("weight", np.float64),  # ω
        ("share", np.float64),  # [GPU] held
        ("loading", np.float64),  # [s] still needed to load the model
        ("batching", BATCHING),  # how the rate grows with the queue
    ]
)
PLATFORM = np.dtype(
    [  # (1,), on what
        ("dt", np.float64),  # [s]
        ("gpus", np.float64),  # [GPU]
        ("most", np.float64),  # [GPU] that one agent can hold
        ("slice", np.float64),  # [GPU]; 0 where shares are continuous
        ("reallocation_s", np.float64),  # [s]
        ("deadband", np.float64),  # [GPU]
    ]
)


class Workspace(NamedTuple):
    """What the plan of one environment is written to on its way."""

    agents: AnyArray  # (N,) of AGENTS
    platform: AnyArray  # (1,) of PLATFORM
    kept_share: Array  # (N, _KEEP) [GPU] shares that cost no reallocation
    costs: Array  # (N + 3, _KEEP + _LEVELS + 1) of those and of each level; then rates, delays and queues
    moves: Array  # (N,) 1 where an agent changes its share
    cost: Array  # (N,) of the chosen share


def _workspace(count: int) -> Workspace:
    """Made anew for each call, so that threads can share a policy."""
    return Workspace(
        np.empty(count, AGENTS),
        np.empty(1, PLATFORM),
        np.empty((count, _KEEP)),
        np.empty((count + 3, _KEEP + _LEVELS + 1)),
        np.empty(count),
        np.empty(count),
    )


class Grid(NamedTuple):
    """The steps that are predicted, and the shares that an agent can choose from."""

    steps: int
    dt: float  # [s] of the first step
    later_dt: float  # [s] of the others
    levels: int  # shares least, least + quantum, …, least + levels · quantum
    least: float  # [GPU]
    quantum: float  # [GPU]


class Forecast(NamedTuple):
    """What is expected of one agent."""

    queue: float  # [requests] now
    inflow: float  # [requests] that join at the start of the second step
    persistence: float  # of the inflow, from each step to the next
    terminal: float  # price of the squared queue at the end
    alone: float = 0.0  # as in BATCHING
    shared: float = 1.0
    full: float = 1.0


@compiled
def drain(queue: float, rate: float, time: float, forecast: Forecast) -> tuple[float, float]:
    """What is left of n calls that a batching server serves for some time, and the integral of n [calls s].

    dn/dt = −rate n/(A + C n) up to B calls, −rate above. An implicit Euler step, which never falls below
    zero and is exact where A = 0; the integral is that of the equation between the two ends.
    """
    above = max(0.0, queue - forecast.full)
    if rate * time <= above:
        return queue - rate * time, time * (queue - 0.5 * rate * time)
    spent = above / rate if above > 0.0 else 0.0
    integral = spent * (queue - 0.5 * above)
    queue, time = queue - above, time - spent
    if queue <= 0.0 or rate <= 0.0:
        return queue, integral + time * queue
    alone, shared = forecast.alone, forecast.shared
    half = 0.5 * (alone + rate * time - shared * queue)
    left = alone * queue
    # The root of C n² + (A + rate t − C n₀) n − A n₀ without cancellation.
    if half > 0.0:
        left /= half + sqrt(half * half + shared * left)
    else:
        left = (sqrt(half * half + shared * left) - half) / shared if shared > 0.0 else queue
    left = min(queue, left)
    served = queue - left
    return left, integral + served * (alone + 0.5 * shared * (queue + left)) / rate


@compiled
def predict_backlogs(
    forecast: Forecast, grid: Grid, rates: AnyArray, delays: AnyArray, queues: AnyArray, backlogs: AnyArray
) -> None:
    """Write the backlog of an agent at each of (K,) service rates, by the fluid model of the environment.

    Service starts after a delay, (K,), which is used up. The first step's arrivals are in the queue
    already; at the start of the next `inflow` requests join, and from then on `persistence` times as many
    as the step before. `queues` is scratch, (K,).

    A backlog is ∫ q dt over the steps, plus `terminal` q² for the queue at their end [requests s]; it is
    convex and falling in the rate.
    """
    length, joining = grid.dt, forecast.queue
    queues[:], backlogs[:] = 0.0, 0.0
    for step in range(grid.steps):
        # The rates side by side, so that several are worked on in one vector instruction.
        for k in range(rates.shape[0]):
            queue = queues[k] + joining
            wait = min(delays[k], length)
            delays[k] -= wait
            if forecast.alone > 0.0:
                queues[k], integral = drain(queue, rates[k], length - wait, forecast)
                integral += wait * queue
            else:
                _, served, integral = serve(queue, rates[k], wait, length)
                queues[k] = queue - served
            backlogs[k] += integral
        length = grid.later_dt
        joining = forecast.inflow if step == 0 else joining * forecast.persistence
    for k in range(rates.shape[0]):
        backlogs[k] += forecast.terminal * queues[k] * queues[k]


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
def _respond(work: Workspace, grid: Grid, price: float, shares: AnyArray) -> float:
    """Each agent's best share at a price of a GPU, whether it moves there, and the sum of all shares."""
    total = 0.0
    for i in range(shares.shape[0]):
        kept, moved = work.costs[i, :_KEEP], work.costs[i, _KEEP:]
        level = _best_level(moved, grid.levels, price * grid.quantum)
        shares[i], work.moves[i] = grid.least + level * grid.quantum, 1.0
        cost = moved[level] + price * shares[i]
        for k in range(_KEEP):
            other = kept[k] + price * work.kept_share[i, k]
            if other <= cost:
                shares[i], work.moves[i], cost = work.kept_share[i, k], 0.0, other
        work.cost[i] = cost - price * shares[i]
        total += shares[i]
    return total


@compiled
def _hand_out(work: Workspace, grid: Grid, left: float, shares: AnyArray) -> None:
    """Give what is left, piece by piece, always where a GPU saves most.

    An agent that moves gets to its next level. One that keeps its share pays for a reallocation
    first, so for it all levels within reach are tried.
    """
    least, quantum = grid.least, grid.quantum
    for _ in range(grid.levels * shares.shape[0]):
        if left <= 0.0:
            return
        best, steepest, chosen, cost_there = -1, 0.0, 0.0, 0.0
        for i in range(shares.shape[0]):
            moved = work.costs[i, _KEEP:]
            level = floor((shares[i] - least) / quantum + 1e-6) + 1
            last = level if work.moves[i] > 0.0 else floor((shares[i] + left - least) / quantum) + 1
            last = min(grid.levels, last)
            while level <= last:
                share, cost = least + level * quantum, moved[level]
                if share > shares[i] + left:
                    part = (share - shares[i] - left) / quantum
                    share, cost = shares[i] + left, cost + part * (moved[level - 1] - cost)
                slope = (work.cost[i] - cost) / (share - shares[i])
                if slope > steepest:
                    best, steepest, chosen, cost_there = i, slope, share, cost
                level += 1
        if best < 0:
            return
        left -= chosen - shares[best]
        shares[best], work.cost[best], work.moves[best] = chosen, cost_there, 1.0


@inlined
def _grid(platform: Any, count: int, constants: AnyArray) -> Grid:
    """The steps and the shares of a programme for so many agents."""
    horizon_s, standby = constants[0], constants[5]
    steps = max(1, floor(min(float(_STEPS), horizon_s / platform.dt) + 0.5))
    later_dt = (horizon_s - platform.dt) / (steps - 1) if steps > 1 else platform.dt
    if platform.slice > 0.0:
        levels = floor(min(float(_LEVELS), platform.most / platform.slice + 1e-6))
        return Grid(steps, platform.dt, later_dt, levels, 0.0, platform.slice)
    least = min(standby, 0.5 * min(platform.most, platform.gpus / count))
    return Grid(steps, platform.dt, later_dt, _LEVELS, least, (platform.most - least) / _LEVELS)


@compiled
def _price_choices(
    work: Workspace, grid: Grid, i: int, constants: AnyArray, correction: AnyArray, gpu_cost: float
) -> float:
    """Write what each choice of an agent is predicted to cost; returns the most that a GPU could save it."""
    agent, platform = work.agents[i], work.platform[0]
    choices, count = _KEEP + grid.levels + 1, work.agents.shape[0]
    rates, delays = work.costs[count, :choices], work.costs[count + 1, :choices]
    inflow_weight, persistence, terminal = constants[1], constants[2] ** grid.later_dt, constants[3]
    weight = agent.weight * exp(correction[URGENCY])
    expected = (inflow_weight * agent.inflow / grid.dt + (1.0 - inflow_weight) * agent.rate) * grid.later_dt
    expected *= exp(correction[FORECAST])
    lasting = persistence ** exp(correction[DECAY])
    change_s = platform.reallocation_s * exp(correction[RELUCTANCE])
    # A change within the deadband is free, but must not exceed it by rounding.
    drift = max(0.0, platform.deadband - _ROUNDING) if platform.slice == 0.0 else 0.0
    for k in range(_KEEP):
        share = min(platform.most, max(grid.least, agent.share + (1 - k) * drift))
        work.kept_share[i, k], rates[k] = share, agent.throughput * speedup(share, agent.kappa)
        delays[k] = agent.loading + (change_s if abs(share - agent.share) > platform.deadband else 0.0)
    for level in range(grid.levels + 1):
        share = grid.least + level * grid.quantum
        rates[_KEEP + level] = agent.throughput * speedup(share, agent.kappa)
        delays[_KEEP + level] = agent.loading + (change_s if share > 0.0 else 0.0)
    batch = agent.batching
    forecast = Forecast(
        agent.queue,
        expected,
        lasting,
        terminal / agent.throughput,
        batch.alone,
        batch.shared,
        batch.full,
    )
    costs = work.costs[i, :choices]
    predict_backlogs(forecast, grid, rates, delays, work.costs[count + 2, :choices], costs)
    steepest = 0.0
    for k in range(_KEEP):
        costs[k] = weight * costs[k] + gpu_cost * work.kept_share[i, k]
    for level in range(grid.levels + 1):
        costs[_KEEP + level] = weight * costs[_KEEP + level] + gpu_cost * (grid.least + level * grid.quantum)
    for level in range(grid.levels):
        saving = (costs[_KEEP + level] - costs[_KEEP + level + 1]) / grid.quantum
        steepest = max(steepest, saving)
    for k in range(_KEEP):
        if work.kept_share[i, k] > grid.least:
            saving = (costs[_KEEP] - costs[k]) / (work.kept_share[i, k] - grid.least)
            steepest = max(steepest, saving)
    return steepest


@compiled
def _plan_row(work: Workspace, constants: AnyArray, corrections: AnyArray, shares: AnyArray) -> None:
    """Write the planned fractions of one environment, (N,).

    Args:
        work: its agents and platform, and scratch.
        constants: in the order of `Constants`.
        corrections: (N, CORRECTIONS).
        shares: where to write, (N,).
    """
    count, platform = shares.shape[0], work.platform[0]
    grid = _grid(platform, count, constants)
    offered = 0.0
    for i in range(count):
        offered += work.agents[i].rate * work.agents[i].weight
    # The objective weighs a second's bill of all GPUs like `bill` seconds of every request's latency.
    gpu_cost = constants[4] * offered / platform.gpus * (grid.dt + (grid.steps - 1) * grid.later_dt)
    steepest = 0.0
    for i in range(count):
        steepest = max(steepest, _price_choices(work, grid, i, constants, corrections[i], gpu_cost))
    limit = platform.gpus * (1.0 + _ROUNDING)
    total = _respond(work, grid, 0.0, shares)
    if total > limit:
        low, high = 0.0, 2.0 * steepest + 1e-300
        for _ in range(_HALVINGS):
            price = 0.5 * (low + high)
            total = _respond(work, grid, price, shares)
            low, high = (price, high) if total > limit else (low, price)
        total = _respond(work, grid, high, shares)
        _hand_out(work, grid, platform.gpus - total, shares)
    fit(shares, platform.gpus)
    for i in range(count):
        shares[i] /= platform.gpus


@inlined
def _batch(iteration: float, per_call: float, constants: AnyArray) -> tuple[float, float, float]:
    """A, C and B of `BATCHING`, of a server whose iteration of b calls takes a + c b [s]."""
    full, decoding = constants[6], constants[7]
    whole = iteration + per_call * full
    alone = full * decoding * iteration / whole if whole > 0.0 else 0.0
    return alone, 1.0 - alone / full if full > 0.0 else 1.0, full


@compiled
def _plan_views(
    packed: Packed,
    constants: AnyArray,
    corrections: AnyArray,
    work: Workspace,
    fractions: AnyArray,
) -> None:
    """Write the planned fractions, (B, N), of a packed view."""
    settings, platform = packed.settings[0], work.platform[0]
    platform.dt, platform.gpus, platform.slice = settings.dt, settings.gpus, settings.slice
    platform.most = min(settings.gpus, settings.max_share)
    # No more than a step is ever lost by a change.
    platform.reallocation_s = min(settings.reallocation_s, settings.dt)
    platform.deadband = settings.deadband
    for b in range(fractions.shape[0]):
        for i in range(fractions.shape[1]):
            now, agent, own = packed.state[b, i], packed.agents[b, i], work.agents[i]
            own.queue, own.inflow, own.rate = now.queue, now.inflow, now.rate
            own.throughput, own.kappa = agent.throughput, agent.kappa
            own.weight, own.share, own.loading = 1.0 / agent.priority, now.share, now.loading
            alone, shared, full = _batch(agent.iteration, agent.iteration_per_call, constants[b])
            own.batching.alone, own.batching.shared, own.batching.full = alone, shared, full
        _plan_row(work, constants[b], corrections[b], fractions[b])


@compiled
def _plan_observations(
    observation: AnyArray,
    constants: AnyArray,
    corrections: AnyArray,
    work: Workspace,
    fractions: AnyArray,
) -> None:
    """Write the planned fractions, (B, N), of observations, (B, N, F), whose columns are undone.

    What no environment shows (a step, platform, throughput or weight of nothing) is not a number.
    """
    rows, platform = observation.view(OBSERVATION), work.platform[0]
    for b in range(observation.shape[0]):
        first, shares = rows[b, 0, 0], fractions[b]
        platform.dt, platform.gpus = unbounded(float(first.dt)), unbounded(float(first.gpus))
        platform.most = min(platform.gpus, unbounded(float(first.max_share)))
        # Less by what float32 leaves of the share held, so that what is planned to be free is.
        platform.slice, platform.deadband = float(first.slice), max(0.0, float(first.deadband) - RESOLUTION)
        platform.reallocation_s = float(first.reallocation) * platform.dt
        sound = platform.dt > 0.0 and platform.most > 0.0
        for i in range(observation.shape[1]):
            row, own = rows[b, i, 0], work.agents[i]
            own.throughput = 50.0 * unbounded(float(row.throughput))
            own.queue = unbounded(float(row.queue)) * own.throughput
            own.inflow = unbounded(float(row.inflow)) * own.throughput * platform.dt
            own.rate = unbounded(float(row.rate)) * own.throughput
            own.kappa = unbounded(float(row.kappa)) if row.kappa < 1.0 else 0.0
            own.weight, own.share = float(row.priority), float(row.share) * platform.gpus
            own.loading = unbounded(float(row.loading))
            iteration = 0.01 * unbounded(float(row.iteration))
            per_call = iteration * unbounded(float(row.batch_slope)) if row.batch_slope < 1.0 else 0.0
            alone, shared, full = _batch(iteration, per_call, constants[b])
            own.batching.alone, own.batching.shared, own.batching.full = alone, shared, full
            sound = sound and own.throughput > 0.0 and own.weight > 0.0
        if sound:
            _plan_row(work, constants[b], corrections[b], shares)
        else:
            for i in range(observation.shape[1]):
                shares[i] = nan


def plan(view: View, constants: Array, corrections: Array | None = None) -> Array:
    """The planned fractions of the platform, shaped as `view.queue`, (N,) or (B, N).

    Args:
        view: what is planned from.
        constants: `Constants` as an array, (C,), or of each environment, (B, C).
        corrections: logarithms of factors, (B, N, CORRECTIONS), or none.
    """
    packed = pack(view)
    if corrections is None:
        corrections = np.zeros((*packed.state.shape, len(CORRECTIONS)))
    return plan_packed(packed, constants, corrections).reshape(view.queue.shape)


def plan_packed(packed: Packed, constants: Array, corrections: Array) -> Array:
    """What `plan` does, for a packed view: fractions of the platform, (B, N)."""
    fractions = np.empty(packed.state.shape)
    work = _workspace(len(corrections[0]))
    _plan_views(packed, of_each(constants, len(fractions)), corrections, work, fractions)
    return fractions


def plan_observed(observation: AnyArray, constants: Array, corrections: Array) -> Array:
    """What `plan` would do where only the observation is known, to within the resolution of float32.

    The columns of slices and of the deadband end at one GPU: larger ones are taken for one.

    Args:
        observation: (B, N, F), each number in [0, 1].
        constants: as in `plan`.
        corrections: logarithms of factors, (B, N, CORRECTIONS).

    Returns:
        Fractions of the platform, (B, N); not numbers where no environment shows such an observation.
    """
    fractions = np.empty(observation.shape[:2])
    work = _workspace(len(corrections[0]))
    _plan_observations(observation, of_each(constants, len(fractions)), corrections, work, fractions)
    return fractions


def of_each(constants: Array, environments: int) -> Array:
    """Constants of each environment, (B, C), as one contiguous array: another layout is compiled anew."""
    return np.ascontiguousarray(np.broadcast_to(constants, (environments, len(Constants._fields))))
