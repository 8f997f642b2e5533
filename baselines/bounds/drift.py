"""Shares that follow the traffic by changes too small to be charged, but for chosen jumps."""

from typing import Any

import numpy as np

from baselines.bounds.programme import Programme, speedup
from gpualloc_env.simulation.state import AnyArray, Array

TANGENTS = (0.02, 0.1, 0.25, 0.45, 0.7, 1.0)  # shares at which every curve is bounded [max_share]


def drifting_shares(
    p: Programme, jumps: AnyArray, step: float, lost: float, around: list[tuple[Array, Array]]
) -> tuple[Array, Array, Array] | None:
    """The relaxed programme with every change of a share limited but for some jumps, by HiGHS.

    A linear programme: the curves f(g) and x²/(2 f(g)) are replaced by tangents, at fixed places
    and around given points. Its value is no bound: a good policy may jump elsewhere.

    Args:
        p: the relaxed programme.
        jumps: where a share may change by any amount, and service starts late, (T, N) bool.
        step: largest change elsewhere [GPU].
        lost: fraction of a step by which service starts late at a jump.
        around: points (work, share), (T, N) each, near which the tangents should be good.

    Returns:
        Shares [GPU], work [GPU steps], and what a GPU more of change would have saved, (T, N)
        each; none where HiGHS found no solution.
    """
    # Only the bound and the clairvoyant search need scipy.
    from scipy import sparse
    from scipy.optimize import linprog

    steps, count = p.arrivals.shape
    size = steps * count
    ready = np.where(jumps, 1.0 - lost, 1.0)
    # Columns: share, work, left, and half the square of the work over f(g).
    rows, limits = zip(*_share_limits(p, jumps, step), *_tangents(p, ready, around), strict=True)
    price = np.full((steps, count), p.price)
    credit = -p.credit + p.within * (1.0 - ready)
    costs = [price, credit, np.tile(p.holding, (steps, 1)), np.tile(p.within, (steps, 1))]
    most = np.repeat([p.max_share, np.inf, np.inf, np.inf], size)
    result = linprog(
        np.concatenate([cost.ravel() for cost in costs]),
        A_ub=sparse.vstack(rows, format="csr"),
        b_ub=np.concatenate(limits),
        A_eq=_flow(p),
        b_eq=p.arrivals.ravel(),
        bounds=np.column_stack([np.zeros(4 * size), most]),
        method="highs-ds",
    )
    if result.x is None:
        return None
    saved = np.zeros((steps, count))
    saved[1:] = -result.ineqlin.marginals[: 2 * (size - count)].reshape(2, steps - 1, count).sum(axis=0)
    share, work = result.x[: 2 * size].reshape(2, steps, count)
    return share, work, saved


def _flow(p: Programme) -> Any:
    """What comes, is worked on and is left in each step: (T N, 4 T N), of the arrivals."""
    from scipy import sparse

    steps, count = p.arrivals.shape
    size = steps * count
    one, none = sparse.identity(size, format="csr"), sparse.csr_matrix((size, size))
    before = sparse.eye(size, k=-count, format="csr")
    routed = none
    if p.routing.size:
        routed = sparse.kron(sparse.eye(steps, k=-1), sparse.csr_matrix(p.routing), format="csr")
    return sparse.hstack([none, one - routed, one - before, none]).tocsr()


def _share_limits(p: Programme, jumps: AnyArray, step: float) -> list[tuple[Any, Array]]:
    """Rows and limits of the changes of a share, upwards and downwards, and of the capacity."""
    from scipy import sparse

    steps, count = p.arrivals.shape
    size = steps * count
    change = (sparse.identity(size, format="csr") - sparse.eye(size, k=-count, format="csr"))[count:]
    limit = np.where(jumps[1:].ravel(), p.max_share, step)
    capacity = sparse.kron(sparse.identity(steps), np.ones((1, count)))
    parts = [(change, limit), (-change, limit), (capacity, np.full(steps, p.gpus))]
    return [
        (sparse.hstack([rows, sparse.csr_matrix((rows.shape[0], 3 * size))]), bound) for rows, bound in parts
    ]


def _tangents(p: Programme, ready: Array, around: list[tuple[Array, Array]]) -> list[tuple[Any, Array]]:
    """Rows and limits that keep the work below f(g) and its square over f(g) above; as in `drifting_shares`.

    `ready` is the part of a step in which an agent is served, (T, N).
    """
    from scipy import sparse

    size, shape = p.arrivals.size, p.arrivals.shape
    one, none = sparse.identity(size, format="csr"), sparse.csr_matrix((size, size))
    tangents: list[tuple[Any, Array]] = []

    def bound_work(share: Array) -> None:
        f, slope = _curve(p, share)
        row = sparse.hstack([-sparse.diags((ready * slope).ravel()), one, none, none])
        tangents.append((row, (ready * (f - slope * share)).ravel()))

    def bound_square(work: Array, share: Array) -> None:
        f, slope = _curve(p, share)
        busy = work / f
        by_share = sparse.diags((0.5 * busy**2 * slope).ravel())
        row = sparse.hstack([-by_share, sparse.diags(busy.ravel()), none, -one])
        tangents.append((row, (0.5 * busy * work - 0.5 * busy**2 * slope * share).ravel()))

    for fraction in TANGENTS:
        bound_work(np.full(shape, fraction * p.max_share))
    for work, share in around:
        near = np.maximum(share, 1e-3 * p.max_share)
        for factor in (0.5, 0.8, 1.0, 1.25):
            place = np.minimum(factor * near, p.max_share)
            bound_work(place)
            bound_square(np.minimum(work, _curve(p, near)[0]), place)
        for busy in (0.5, 1.0):
            bound_square(busy * _curve(p, near)[0], near)
    return tangents


def _curve(p: Programme, share: Array) -> tuple[Array, Array]:
    """f(g) and its slope."""
    below = np.where(p.kappa == 0, 1.0, share + p.kappa)
    return speedup(p, share), np.where(p.kappa == 0, 1.0, p.kappa * (1 + p.kappa) / below**2)
