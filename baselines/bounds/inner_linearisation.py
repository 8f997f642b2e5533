"""The relaxed programme of `baselines.bounds.bound` by inner linearisation: linear programmes for HiGHS.

An agent in a step chooses a point (g, b), its share and the part b of the step in which it serves
x = b f(g) at the cost within·b² f(g)/2. A linear programme mixes a few such points, its columns,
so its optimum is a feasible point of the convex programme, and its multipliers make a bound
(`baselines.bounds.programme.dual_value`): how far apart the two are is known. The columns are a grid
first, then a finer one around each agent's point in the optimum before.

Inner linearisation and its relation to Dantzig and Wolfe's decomposition: Geoffrion, Management
Science 16 (1970) 652; refining the grid: Bradley, Hax and Magnanti, Applied Mathematical
Programming (1977), chapter 13.
"""

from typing import Any, NamedTuple

import numpy as np

from baselines.bounds.programme import (
    Programme,
    best_busy,
    best_shares,
    dual_value,
    serving_gain,
    serving_worth,
    speedup,
)
from gpualloc_env.simulation.shares import NEGLIGIBLE
from gpualloc_env.simulation.state import Array

SHARES = (0.04, 0.08, 0.16, 0.4, 1.0)  # of the first grid [max_share]
BUSY = (0.12, 0.3, 0.6, 1.0)  # of the first grid
SPREADS = (0.4, 0.2)  # reach of the finer grids, in logarithms of g and b
POINTS = np.linspace(-1.0, 1.0, 4)  # of a finer grid along either of them [spread]
SMALLEST = 1e-3  # coordinate of a finer grid's centre: it must be able to grow again
CLOSE = 2e-3  # distance of bound and feasible point that is not refined further [bound]
PIVOTS = 10  # [agents × steps] after which the simplex method is given up; it takes 3 to 6
LARGE = 10_000  # agents × steps above which one finer grid must do, because each takes seconds


class Columns(NamedTuple):
    """Points that the linear programme mixes, K for every step and agent."""

    share: Array  # (K, T, N) [GPU]
    busy: Array  # (K, T, N) part of the step


class Optimum(NamedTuple):
    """Both sides of the programme's least value."""

    lower_bound: float  # per step
    cost: float  # per step, of the point below
    share: Array  # (T, N) [GPU]
    work: Array  # (T, N) [GPU steps]


class _Mixture(NamedTuple):
    """The optimum of a linear programme."""

    cost: float  # per step
    share: Array  # (T, N) [GPU]
    work: Array  # (T, N) [GPU steps]
    speed: Array  # (T, N) f(g) of its columns, mixed alike [GPU steps]
    value: Array  # (T, N) multipliers of the flow
    price: Array  # (T,) multipliers of the capacity


def solve(p: Programme) -> Optimum:
    """A bound and a feasible point of a programme.

    They are within some 0.3 % of each other, 1.2 % in a large programme; of that distance the bound
    takes the smaller part.

    Raises:
        RuntimeError: HiGHS solved none of the linear programmes.
    """
    columns, best = _grid(p), None
    spreads = SPREADS if p.arrivals.size <= LARGE else SPREADS[:1]
    for spread in (*spreads, None):
        mixture = _mixed(p, columns)
        if mixture is None:
            break
        found = Optimum(dual_value(p, mixture.value), mixture.cost, mixture.share, mixture.work)
        best = found if best is None else _better(best, found)
        if spread is None or best.cost - best.lower_bound <= CLOSE * abs(best.lower_bound):
            break
        columns = _finer(p, mixture, spread)
    if best is None:
        raise RuntimeError("HiGHS found no optimum of the relaxed programme")
    return best


def _better(one: Optimum, other: Optimum) -> Optimum:
    point = other if other.cost < one.cost else one
    return point._replace(lower_bound=max(one.lower_bound, other.lower_bound))


def _grid(p: Programme) -> Columns:
    """Columns of the first linear programme. Where throughput is linear, g and b matter as a product."""
    share, busy = (axis.ravel()[:, None] for axis in np.meshgrid(SHARES, BUSY))
    linear = np.geomspace(0.3 * BUSY[0], 1.0, len(busy))[:, None]
    return _with_corners(
        p,
        np.where(p.kappa == 0, 1.0, share)[:, None] * p.max_share,
        np.where(p.kappa == 0, linear, busy)[:, None],
    )


def _finer(p: Programme, at: _Mixture, spread: float) -> Columns:
    """Columns around an optimum; around what its multipliers ask for where it holds and serves nothing."""
    worth = serving_worth(p, at.value)
    wanted = best_shares(p, serving_gain(worth, p.within), at.price)
    share = np.where(at.share > NEGLIGIBLE, at.share, wanted)
    busy = np.divide(at.work, at.speed, out=best_busy(worth, p.within), where=at.work > NEGLIGIBLE)
    along, across = (spread * axis.ravel()[:, None, None] for axis in np.meshgrid(POINTS, POINTS))
    linear = 2 * spread * np.linspace(-1.0, 1.0, len(along))[:, None, None]
    share = np.maximum(share, SMALLEST * p.max_share) * np.exp(along)
    busy = np.maximum(busy, SMALLEST) * np.exp(np.where(p.kappa == 0, linear, across))
    return _with_corners(
        p, np.where(p.kappa == 0, p.max_share, np.minimum(share, p.max_share)), np.minimum(busy, 1.0)
    )


def _with_corners(p: Programme, share: Array, busy: Array) -> Columns:
    """Columns with the whole share in use, so that what can be served is, and with the corner at R."""
    parts = [(share, busy), (np.full((1, 1, 1), p.max_share), np.ones((1, 1, 1)))]
    if p.short.any():
        least = np.minimum(p.min_share, p.max_share)[None, None]
        parts += [(least, busy), (least, np.zeros((1, 1, 1)))]
    wide = [[np.broadcast_to(axis, (len(part[1]), *p.arrivals.shape)) for axis in part] for part in parts]
    return Columns(*(np.concatenate(axis) for axis in zip(*wide, strict=True)))


def _mixed(p: Programme, columns: Columns) -> _Mixture | None:
    """The best mixture of columns; none where HiGHS found none.

    Variables: the weight of each column, (K, T, N), and what is left, (T, N).
    """
    # Only the bound and the clairvoyant search need scipy.
    from scipy.optimize import linprog

    share, busy = columns
    (steps, count), cells = p.arrivals.shape, p.arrivals.size
    speed = speedup(p, share)
    work = busy * speed
    # No share at all, the rest of the weights, costs what being short of all of R costs.
    cost = p.price * share + (0.5 * p.within * busy - p.credit) * work
    cost -= p.short * np.minimum(share, p.min_share)
    scale = max(p.holding.max(), p.price, p.credit.max()) or 1.0
    column = np.arange(share.size).reshape(share.shape)
    cell = np.broadcast_to(np.arange(cells).reshape(p.arrivals.shape), share.shape)
    left = share.size + np.arange(cells)
    entries = [(work, cell, column), (np.ones(cells), np.arange(cells), left)]
    entries.append((-np.ones(cells - count), np.arange(count, cells), left[: cells - count]))
    for i, j in np.argwhere(p.routing):
        entries.append((-p.routing[i, j] * work[:, :-1, j], cell[:, 1:, i], column[:, :-1, j]))
    step = np.broadcast_to(np.arange(steps)[:, None], share.shape)
    limits = [(share, step, column), (np.ones(share.shape), steps + cell, column)]

    variables = np.zeros((share.size + cells, 2))
    variables[: share.size, 1], variables[share.size :, 1] = 1.0, np.inf
    programme = {
        "c": np.concatenate([cost.ravel(), np.tile(p.holding, steps)]) / scale,
        "A_ub": _matrix(limits, steps + cells, share.size + cells),
        "b_ub": np.concatenate([np.full(steps, p.gpus), np.ones(cells)]),
        "A_eq": _matrix(entries, cells, share.size + cells),
        "b_eq": p.arrivals.ravel(),
        "bounds": variables,
    }
    # With routing some bases are so ill-conditioned that the simplex method gives up, or never ends:
    # presolve makes that rare, and costs more than it saves elsewhere. The interior point method
    # comes through.
    for method, presolve in (("highs-ds", p.routing.size > 0), ("highs-ipm", False)):
        options = {"presolve": presolve, "maxiter": PIVOTS * cells}
        result = linprog(**programme, method=method, options=options)
        if result.status == 0:
            break
    else:
        return None
    weight = result.x[: share.size].reshape(share.shape)
    short = float((p.short * p.min_share).sum())
    return _Mixture(
        cost=(scale * result.fun + short) / steps,
        share=(weight * share).sum(axis=0),
        work=(weight * work).sum(axis=0),
        speed=(weight * speed).sum(axis=0),
        value=scale * result.eqlin.marginals.reshape(p.arrivals.shape),
        price=-scale * result.ineqlin.marginals[:steps],
    )


def _matrix(parts: list[tuple[Array, ...]], rows: int, columns: int) -> Any:
    """A sparse matrix of parts: entries, their rows and their columns, each in arrays of one shape."""
    from scipy import sparse

    entry, row, column = (
        np.concatenate([each.ravel() for each in part]) for part in zip(*parts, strict=True)
    )
    return sparse.csr_array((entry, (row, column)), shape=(rows, columns))
