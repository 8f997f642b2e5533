"""Receding-horizon control: a programme over the next steps, solved anew in every step."""

from dataclasses import dataclass
from math import floor

import numpy as np

from baselines.curves import speedup
from baselines.rows import decide
from baselines.tunable import tunable
from baselines.water_filling import fit
from gpualloc_env.compiled import compiled
from gpualloc_env.observation import View
from gpualloc_env.state import AnyArray, Array

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
        served = min(queue, rate * (length - wait))
        busy = served / rate if rate > 0.0 else 0.0
        left = queue - served
        total += queue * wait + (left + 0.5 * served) * busy + left * (length - wait - busy)
        queue = left
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
    while left > 0.0:
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
def _plan(
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
    later_dt: float,
    steps: int,
    inflow_weight: float,
    persistence: float,
    terminal: float,
    bill: float,
    standby: float,
    moved: AnyArray,
    room: AnyArray,
    fractions: AnyArray,
) -> None:
    """Write the planned fractions, (B, N); `moved` is room for (N, LEVELS + 1) numbers, `room` for (8, N)."""
    count = queue.shape[1]
    kept, kept_share = room[:_KEEP].T, room[_KEEP : 2 * _KEEP].T
    moves, costs = room[2 * _KEEP], room[2 * _KEEP + 1]
    least, levels = min(standby, 0.5 * gpus / count), _LEVELS
    quantum = (most - least) / levels
    # A change within the deadband is free, but must not exceed it by rounding.
    drift = max(0.0, deadband - _ROUNDING)
    if slice_ > 0.0:
        levels = min(_LEVELS, floor(most / slice_ + 1e-6))
        least, quantum, drift = 0.0, slice_, 0.0
    for b in range(queue.shape[0]):
        offered = 0.0
        for i in range(count):
            offered += rate[b, i] / priority[b, i]
        # The objective weighs a second's bill of all GPUs like `bill` seconds of every request's latency.
        gpu_cost = bill * offered / gpus * (dt + (steps - 1) * later_dt)
        steepest = 0.0
        for i in range(count):
            weight, base = 1.0 / priority[b, i], throughput[b, i]
            expected = (inflow_weight * inflow[b, i] / dt + (1.0 - inflow_weight) * rate[b, i]) * later_dt
            for level in range(levels + 1):
                share = least + level * quantum
                late = loading[b, i] + (reallocation_s if share > 0.0 else 0.0)
                speed = base * speedup(share, kappa[b, i])
                backlog = predicted_backlog(
                    queue[b, i], expected, persistence, speed, late, dt, later_dt, steps, terminal / base
                )
                moved[i, level] = weight * backlog + gpu_cost * share
            for k in range(_KEEP):
                share = min(most, max(least, held[b, i] + (1 - k) * drift))
                late = loading[b, i] + (reallocation_s if abs(share - held[b, i]) > deadband else 0.0)
                speed = base * speedup(share, kappa[b, i])
                backlog = predicted_backlog(
                    queue[b, i], expected, persistence, speed, late, dt, later_dt, steps, terminal / base
                )
                kept[i, k], kept_share[i, k] = weight * backlog + gpu_cost * share, share
            for level in range(levels):
                steepest = max(steepest, (moved[i, level] - moved[i, level + 1]) / quantum)
            for k in range(_KEEP):
                if kept_share[i, k] > least:
                    saving = (moved[i, 0] - kept[i, k]) / (kept_share[i, k] - least)
                    steepest = max(steepest, saving)
        shares, limit = fractions[b], gpus * (1.0 + _ROUNDING)
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


@dataclass(frozen=True)
class RecedingHorizon:
    """Minimise what the next steps are predicted to cost, act on the first step, and plan again.

    Model predictive control with one move held over the horizon (move blocking: Cagienard et al.,
    Journal of Process Control 17 (2007); the principle: Mayne et al., Automatica 36 (2000)):

        min over g   Σ_i [ω_i ∫ q_i(g_i) dt + ω_i terminal q_i(end)² / T_i + price g_i]
        subject to   Σ g_i ≤ G,  standby ≤ g_i ≤ max_share,

    with q_i the fluid queue of the environment itself: what waits now, the forecast of the
    arrivals, concave throughput, a model that still loads, and the time that a reallocation costs
    an agent unless it stays within the deadband of what it holds. Each agent's cost is convex in
    its share but for that exception. The capacity is priced instead of enforced: at a price ν
    every agent answers on its own, exactly, with the best of 51 shares and of those that cost no
    reallocation; the answers fall with ν, which is bisected until they fit. What then is left
    goes, piece by piece, where it saves most. The duality gap is that of the exceptions alone.
    O(N (51 steps + 40 log 51)) for each decision, and O(N) for each level handed out.
    """

    horizon_s: float = tunable(8.0, 1.0, 24.0)
    """Time that is predicted [s]."""
    inflow_weight: float = tunable(0.65, 0.0, 1.0)
    """Forecast of the arrivals: weight of this step's inflow against the smoothed rate."""
    persistence: float = tunable(0.9, 0.6, 1.0)
    """Forecast of the arrivals: what is left of their rate after a second; bursts end."""
    terminal: float = tunable(0.1, 0.0, 2.0)
    """Price of the queue at the end: a multiple of the time in which T would empty it."""
    bill: float = tunable(0.1, 0.0, 1.0)
    """Price of a step's bill of all GPUs, in seconds of the mean latency."""
    standby: float = tunable(0.01, 0.0, 0.1)
    """Share that everyone holds, so that no model is unloaded [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        count = view.queue.shape[-1]
        steps = max(1, min(_STEPS, round(self.horizon_s / view.dt)))
        later_dt = (self.horizon_s - view.dt) / (steps - 1) if steps > 1 else float(view.dt)
        columns = (
            view.queue,
            view.inflow,
            view.rate,
            view.throughput,
            view.kappa,
            view.priority,
            view.share,
            view.loading,
        )
        return decide(
            _plan,
            view,
            columns,
            view.dt,
            view.gpus,
            min(view.gpus, view.max_share),
            view.slice,
            view.reallocation_s,
            view.deadband,
            later_dt,
            steps,
            self.inflow_weight,
            self.persistence**later_dt,
            self.terminal,
            self.bill,
            self.standby,
            np.empty((count, _LEVELS + 1)),
            np.empty((2 * _KEEP + 2, count)),
        )
