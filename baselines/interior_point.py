"""A primal-dual interior point method for the relaxed programme of `baselines.bound`.

Mehrotra's predictor and corrector (SIAM J. Optim. 2 (1992) 575). The programme is separable but
for the flow of each agent and the capacity of each step, so a Newton step is a block tridiagonal
system: a millisecond, where an LP solver needs tangents in place of the curves, and longer.
Nothing rests on the accuracy of the result: `baselines.bound` makes a bound of any multipliers,
the better the closer they are to these.
"""

import numpy as np

from baselines.block_tridiagonal import factor_blocks, solve_blocks
from baselines.programme import (
    FREE,
    LEFT,
    ROOM,
    SHARE,
    WORK,
    Linear,
    Point,
    Programme,
    aim,
    eliminate,
    linearise,
    recover,
)

ITERATIONS = 80
GAP, RESIDUAL = 1e-8, 1e-6  # at which the method stops, relative to the largest cost
_TO_THE_BOUNDARY = 0.995


def solve(programme: Programme) -> Point:
    """The optimum of a programme and its multipliers, as close as the method gets to them."""
    scale = max(programme.holding.max(), programme.price, programme.credit.max()) or 1.0
    p = programme._replace(
        holding=programme.holding / scale,
        within=programme.within / scale,
        credit=programme.credit / scale,
        short=programme.short / scale,
        price=programme.price / scale,
    )
    at, linear = _start(p), _room(p)
    still, ahead = (Point(*(np.zeros_like(part) for part in at)) for _ in range(2))
    pairs = at.cost.size + at.price.size
    best, least = at, np.inf
    for _ in range(ITERATIONS):
        residual = linearise(p, at, linear)
        gap = _complementarity(at) / pairs
        error = max(residual / RESIDUAL, gap / GAP)
        if error < least:
            best, least = at, error
        if not 1.0 <= error < np.inf:
            break
        eliminate(p, at, linear)
        factor_blocks(linear.diagonal, linear.below)
        _aim(p, at, linear, 0.0, still, ahead)
        target = gap * (_complementarity(_moved(at, ahead, _reach(at, ahead))) / pairs / gap) ** 3
        # Curvature is what is left of a residual: complementarity must not run ahead of it.
        target = max(target, min(gap, 0.1 * residual))
        pushed = still._replace(slack=ahead.slack * ahead.cost, spare=ahead.spare * ahead.price)
        _aim(p, at, linear, target, pushed, ahead)
        at = _moved(at, ahead, min(1.0, _TO_THE_BOUNDARY * _reach(at, ahead)))
    return best._replace(cost=scale * best.cost, price=scale * best.price, value=scale * best.value)


def _start(p: Programme) -> Point:
    """A point well inside the limits; the flow need not hold there."""
    steps, count = p.arrivals.shape
    share = min(0.5 * p.gpus / count, 0.5 * p.max_share)
    work = 0.5 * np.where(p.kappa == 0, share, share * (1 + p.kappa) / (share + p.kappa))
    slack = np.empty((steps, count, 5))
    slack[:, :, SHARE], slack[:, :, FREE] = share, p.max_share - share
    slack[:, :, WORK] = slack[:, :, ROOM] = work
    slack[:, :, LEFT] = 1.0
    spare = np.full(steps, p.gpus - count * share)
    return Point(slack, 0.1 / slack, spare, 0.1 / spare, np.zeros((steps + 1, count)))


def _room(p: Programme) -> Linear:
    steps, count = p.arrivals.shape
    inverse, gradient, drawn = (np.empty((steps, count, columns)) for columns in (5, 3, 4))
    slope, unmet, flow = (np.empty((steps, count)) for _ in range(3))
    diagonal, below = np.empty((steps, count, count)), np.empty((max(0, steps - 1), count, count))
    return Linear(inverse, slope, gradient, unmet, flow, drawn, diagonal, below)


def _aim(p: Programme, at: Point, linear: Linear, target: float, pushed: Point, ahead: Point) -> None:
    """Solve for the direction in which the complementarity is `target`."""
    right = ahead.value[:-1]
    aim(p, at, linear, target, pushed, right)
    solve_blocks(linear.diagonal, linear.below, right)
    recover(p, at, linear, target, pushed, ahead)


def _complementarity(at: Point) -> float:
    return float(np.sum(at.slack * at.cost) + np.sum(at.spare * at.price))


def _reach(at: Point, ahead: Point) -> float:
    """The longest step, at most 1, for which everything positive stays so."""
    parts = ((at.slack, ahead.slack), (at.cost, ahead.cost), (at.spare, ahead.spare), (at.price, ahead.price))
    return 1.0 / max(1.0, *(float(np.max(-step / now)) for now, step in parts))


def _moved(at: Point, ahead: Point, by: float) -> Point:
    return Point(*(now + by * step for now, step in zip(at, ahead, strict=True)))
