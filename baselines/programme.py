"""The relaxed programme of `baselines.bound`, and a Newton step towards its optimum.

The programme is separable but for one flow constraint for each agent and step and one capacity
constraint for each step, so a Newton step is the solution of a block tridiagonal system: T
blocks of (N, N), a few milliseconds. An LP solver needs tangents in place of the curves, and is
slower. Nothing rests on the accuracy of the result: `baselines.bound` makes a bound of any
multipliers, the better the closer they are to these.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from gpualloc_env.state import AnyArray, Array

_compiled = njit(cache=True, error_model="numpy", fastmath={"reassoc", "contract"})
# The constraints need an interior: an agent to whom nothing has come yet gets so much [GPU steps].
CRUMB = 1e-8
# Width of the smooth corner that stands for max(0, R − g) [GPU].
CORNER = 0.01


class Programme(NamedTuple):
    """The relaxed programme. Work is counted in GPU steps: what one whole GPU serves in one step.

    Minimise the sum over steps of holding·left + within·x²/(2 f(g)) − credit·x + price·Σ g
    + short·max(0, R − g) over x in [0, f(g)], left ≥ 0, g in [0, max_share], Σ g ≤ gpus, where
    left(t) = left(t − 1) + arrivals(t) + routing·x(t − 1) − x(t).
    """

    arrivals: Array  # (T, N) [GPU steps]
    kappa: Array  # (N,) [GPU]; 0 where throughput is linear
    holding: Array  # (N,) cost of a GPU step of work that waits at the end of a step
    within: Array  # (N,) cost of a GPU step of work that waits for the whole of the step that serves it
    credit: Array  # (N,) earned for a GPU step served
    min_share: Array  # (N,) R [GPU]
    short: Array  # (T, N) cost of a GPU short of R
    routing: Array  # (N, N): x(t − 1) of column j becomes routing[i, j] x of row i; (0, 0) for none
    price: float  # cost of a GPU for a step
    gpus: float
    max_share: float


# Columns of an agent's slacks and of their multipliers: the variables, and what is left to their limits.
SHARE, FREE, WORK, ROOM, LEFT = range(5)


class Point(NamedTuple):
    """A point of the interior with its multipliers, or a direction from one."""

    slack: Array  # (T, N, 5) positive
    cost: Array  # (T, N, 5) their multipliers
    spare: Array  # (T,) G − Σ g [GPU]
    price: Array  # (T,) its multiplier
    value: Array  # (T + 1, N) multipliers of the flow, zero in the last row


class Linear(NamedTuple):
    """The optimality conditions, linearised at a point."""

    inverse: Array  # (T, N, 5) of each agent's Hessian: xx, xg, gg, and its product with (−1, f′)
    slope: Array  # (T, N) f′
    gradient: Array  # (T, N, 3) residuals by x, g and left
    unmet: Array  # (T, N) residual of x + room = f(g)
    flow: Array  # (T, N) residual of the flow
    drawn: Array  # (T, N, 4) right-hand sides by x, g, left and the limit x ≤ f(g)
    diagonal: Array  # (T, N, N) blocks of the system that is left for the flow, and then its factor
    below: Array  # (T - 1, N, N)


@_compiled
def _curve(share: float, kappa: float) -> tuple[float, float, float]:
    """f(g) and its first two derivatives."""
    if kappa == 0.0:
        return share, 1.0, 0.0
    below = share + kappa
    slope = (1.0 + kappa) * kappa / (below * below)
    return share * (1.0 + kappa) / below, slope, -2.0 * slope / below


@_compiled
def linearise(p: Programme, at: Point, out: Linear) -> float:
    """Write the residuals and second derivatives at a point; return the largest absolute residual."""
    slack, cost, price, value = at.slack, at.cost, at.price, at.value
    inverse, slopes, gradient, unmet, flow = out.inverse, out.slope, out.gradient, out.unmet, out.flow
    steps, count = flow.shape
    largest = 0.0
    for t in range(steps):
        for i in range(count):
            share, work, room, left = (
                slack[t, i, SHARE],
                slack[t, i, WORK],
                slack[t, i, ROOM],
                slack[t, i, LEFT],
            )
            f, slope, bend = _curve(share, p.kappa[i])
            busy = work / f
            within = p.within[i]
            corner = np.sqrt((p.min_share[i] - share) ** 2 + CORNER * CORNER)
            # The Hessian is a diagonal and two squares, of the limit x ≤ f(g) and of x²/(2 f(g)); as
            # the first grows without end, only these forms of its inverse do not cancel.
            tight, bowl = cost[t, i, ROOM] / room, within / f
            by_x = cost[t, i, WORK] / work
            by_g = cost[t, i, SHARE] / share + cost[t, i, FREE] / slack[t, i, FREE]
            by_g -= (0.5 * within * busy * busy + cost[t, i, ROOM]) * bend
            by_g += p.short[t, i] * 0.5 * CORNER * CORNER / corner**3
            idle = slope * (1.0 - busy)
            determinant = by_x * by_g + tight * (by_x * slope * slope + by_g) + tight * bowl * idle * idle
            determinant += bowl * (by_x * busy * busy * slope * slope + by_g)
            inverse[t, i, 0] = (by_g + (tight + bowl * busy * busy) * slope * slope) / determinant
            inverse[t, i, 1] = (tight + bowl * busy) * slope / determinant
            inverse[t, i, 2] = (by_x + tight + bowl) / determinant
            inverse[t, i, 3] = (bowl * busy * slope * idle - by_g) / determinant
            inverse[t, i, 4] = (by_x * slope + bowl * idle) / determinant
            slopes[t, i] = slope
            by_work = within * busy - p.credit[i] - value[t, i] - cost[t, i, WORK] + cost[t, i, ROOM]
            inflow = p.arrivals[t, i] + CRUMB
            if t > 0:
                inflow += slack[t - 1, i, LEFT]
            for j in range(p.routing.shape[0]):
                by_work += p.routing[j, i] * value[t + 1, j]
                if t > 0:
                    inflow += p.routing[i, j] * slack[t - 1, j, WORK]
            gradient[t, i, 0] = by_work
            gradient[t, i, 1] = (
                p.price
                + price[t]
                - 0.5 * within * busy * busy * slope
                - 0.5 * p.short[t, i] * (1.0 + (p.min_share[i] - share) / corner)
                - cost[t, i, SHARE]
                + cost[t, i, FREE]
                - cost[t, i, ROOM] * slope
            )
            gradient[t, i, 2] = p.holding[i] - value[t, i] + value[t + 1, i] - cost[t, i, LEFT]
            unmet[t, i] = f - work - room
            flow[t, i] = inflow - work - left
            for k in range(3):
                largest = max(largest, abs(gradient[t, i, k]))
            largest = max(largest, abs(unmet[t, i]), abs(flow[t, i]))
    return largest


@_compiled
def eliminate(p: Programme, at: Point, out: Linear) -> None:
    """Eliminate all but the multipliers of the flow: what is left is block tridiagonal."""
    slack, cost, spare, price = at.slack, at.cost, at.spare, at.price
    inverse, diagonal, below = out.inverse, out.diagonal, out.below
    steps, count = spare.shape[0], slack.shape[1]
    routed = p.routing.shape[0] > 0
    reply = np.empty((count, count))
    sent = np.empty((count, count))
    for t in range(steps):
        pull = spare[t] / price[t]
        for i in range(count):
            pull += inverse[t, i, 2]
        for i in range(count):
            for j in range(count):
                reply[i, j] = -inverse[t, i, 1] * inverse[t, j, 1] / pull
            reply[i, i] += inverse[t, i, 0]
        for i in range(count):
            loose = slack[t, i, LEFT] / cost[t, i, LEFT]
            for j in range(count):
                # What comes in from the step before has been written by that step.
                diagonal[t, i, j] = reply[i, j] + (diagonal[t, i, j] if t > 0 else 0.0)
            diagonal[t, i, i] += loose
        if t == steps - 1:
            break
        if routed:
            sent[:] = 0.0
            for i in range(count):
                for k in range(count):
                    if p.routing[i, k] != 0.0:
                        for j in range(count):
                            sent[i, j] += p.routing[i, k] * reply[k, j]
        for i in range(count):
            for j in range(count):
                below[t, i, j] = -sent[i, j] if routed else 0.0
                diagonal[t + 1, i, j] = 0.0
                if routed:
                    for k in range(count):
                        diagonal[t + 1, i, j] += sent[i, k] * p.routing[j, k]
            loose = slack[t, i, LEFT] / cost[t, i, LEFT]
            below[t, i, i] -= loose
            diagonal[t + 1, i, i] += loose


@_compiled
def aim(p: Programme, at: Point, linear: Linear, target: float, pushed: Point, right: AnyArray) -> None:
    """Write the right-hand side of the system, (T, N).

    Args:
        p: the programme.
        at: the point.
        linear: its linearisation; `drawn` is written.
        target: complementarity aimed at.
        pushed: second-order corrections of the complementarity, in `slack` and `spare`.
        right: room for the result.
    """
    slack, cost, inverse, drawn = at.slack, at.cost, linear.inverse, linear.drawn
    steps, count = right.shape
    gain, work = np.empty(5), np.empty(count)
    right[:] = linear.flow
    for t in range(steps):
        dearer = (target - pushed.spare[t]) / at.spare[t] - at.price[t]
        pull, moved = at.spare[t] / at.price[t], 0.0
        for i in range(count):
            for k in range(5):
                gain[k] = (target - pushed.slack[t, i, k]) / slack[t, i, k] - cost[t, i, k]
            drawn[t, i, 0] = gain[WORK] - linear.gradient[t, i, 0]
            drawn[t, i, 1] = gain[SHARE] - gain[FREE] - dearer - linear.gradient[t, i, 1]
            drawn[t, i, 2] = gain[LEFT] - linear.gradient[t, i, 2]
            drawn[t, i, 3] = gain[ROOM] - cost[t, i, ROOM] / slack[t, i, ROOM] * linear.unmet[t, i]
            moved += inverse[t, i, 1] * drawn[t, i, 0] + inverse[t, i, 2] * drawn[t, i, 1]
            moved += inverse[t, i, 4] * drawn[t, i, 3]
            pull += inverse[t, i, 2]
        for i in range(count):
            work[i] = inverse[t, i, 0] * drawn[t, i, 0] + inverse[t, i, 3] * drawn[t, i, 3]
            work[i] += inverse[t, i, 1] * (drawn[t, i, 1] - moved / pull)
            left = drawn[t, i, 2] * slack[t, i, LEFT] / cost[t, i, LEFT]
            right[t, i] -= work[i] + left
            if t + 1 < steps:
                right[t + 1, i] += left
        if t + 1 < steps:
            for i in range(p.routing.shape[0]):
                for j in range(count):
                    right[t + 1, i] += p.routing[i, j] * work[j]


@_compiled
def recover(p: Programme, at: Point, linear: Linear, target: float, pushed: Point, out: Point) -> None:
    """Write the rest of a direction whose `value` is known."""
    slack, cost, inverse, drawn = at.slack, at.cost, linear.inverse, linear.drawn
    steps, count = linear.flow.shape
    by_work = np.empty(count)
    for t in range(steps):
        pull, moved = at.spare[t] / at.price[t], 0.0
        for i in range(count):
            by_work[i] = drawn[t, i, 0] + out.value[t, i]
            for j in range(p.routing.shape[0]):
                by_work[i] -= p.routing[j, i] * out.value[t + 1, j]
            moved += inverse[t, i, 1] * by_work[i] + inverse[t, i, 2] * drawn[t, i, 1]
            moved += inverse[t, i, 4] * drawn[t, i, 3]
            pull += inverse[t, i, 2]
        # The changes of the shares would cancel in their sum.
        out.spare[t] = -moved / pull * at.spare[t] / at.price[t]
        for i in range(count):
            by_share = drawn[t, i, 1] - moved / pull
            work = inverse[t, i, 0] * by_work[i] + inverse[t, i, 1] * by_share
            work += inverse[t, i, 3] * drawn[t, i, 3]
            share = inverse[t, i, 1] * by_work[i] + inverse[t, i, 2] * by_share
            share += inverse[t, i, 4] * drawn[t, i, 3]
            left = drawn[t, i, 2] + out.value[t, i] - out.value[t + 1, i]
            out.slack[t, i, SHARE], out.slack[t, i, FREE] = share, -share
            out.slack[t, i, WORK] = work
            out.slack[t, i, ROOM] = linear.slope[t, i] * share - work + linear.unmet[t, i]
            out.slack[t, i, LEFT] = left * slack[t, i, LEFT] / cost[t, i, LEFT]
            for k in range(5):
                short = target - pushed.slack[t, i, k] - cost[t, i, k] * out.slack[t, i, k]
                out.cost[t, i, k] = short / slack[t, i, k] - cost[t, i, k]
        short = target - pushed.spare[t] - at.price[t] * out.spare[t]
        out.price[t] = short / at.spare[t] - at.price[t]
