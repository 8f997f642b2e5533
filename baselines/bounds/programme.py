"""The relaxed programme of `baselines.bounds.bound`, and the closed form of its Lagrangian's least value."""

from typing import NamedTuple

import numpy as np

from gpualloc_env.simulation.state import Array

ROUNDING = 1e-11  # of the largest sums; subtracted, so that rounding cannot lift the bound


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


def speed(share: Array | float, kappa: Array) -> Array:
    """f(g) of some shares and agents."""
    return np.where(kappa == 0, share, share * (1 + kappa) / np.where(kappa == 0, 1, share + kappa))


def speedup(p: Programme, share: Array) -> Array:
    """f(g), what a share serves in a step, (…, N) [GPU steps]."""
    return speed(share, p.kappa)


def dual_value(p: Programme, value: Array) -> float:
    """The Lagrangian's least value per step, a lower bound whatever the multipliers are.

    Args:
        p: the programme.
        value: multipliers y of the flow, (T, N): what a GPU step of work costs from then on.
    """
    steps = len(p.arrivals)
    # Work can be left for any later step: it costs at most the waiting until then and its worth there.
    wait = p.holding * np.arange(steps, 0, -1)[:, None]
    value = wait + np.minimum(np.minimum.accumulate((value - wait)[::-1])[::-1], 0.0)
    gain = serving_gain(serving_worth(p, value), p.within)
    price = _capacity_prices(p, gain)
    came = p.arrivals * value
    share = best_shares(p, gain, price)
    held = (p.price + price)[:, None] * share
    earned = gain * speedup(p, share)
    short = p.short * np.maximum(0.0, p.min_share - share)
    total = came.sum() + held.sum() + short.sum() - earned.sum() - p.gpus * price.sum()
    size = came.sum() + held.sum() + short.sum() + earned.sum() + p.gpus * price.sum()
    return float((total - ROUNDING * size) / steps)


def serving_worth(p: Programme, value: Array) -> Array:
    """Worth of serving a GPU step of work, (T, N), where `value` is what it costs otherwise."""
    later = np.vstack([value[1:], np.zeros_like(value[:1])])
    return p.credit + value - (later @ p.routing if p.routing.size else 0.0)


def best_busy(worth: Array, within: Array) -> Array:
    """The part b of a step to serve in, at which v b − within b²/2 is largest in [0, 1]."""
    worth = np.maximum(worth, 0.0)
    return np.minimum(1.0, np.divide(worth, within, out=np.ones_like(worth), where=worth < within))


def serving_gain(worth: Array, within: Array) -> Array:
    """Most that serving earns per unit of f(g): the maximum of v b − within b²/2 over b in [0, 1]."""
    busy = best_busy(worth, within)
    return np.maximum(worth, 0.0) * busy - 0.5 * within * busy * busy


def best_shares(p: Programme, gain: Array, price: Array) -> Array:
    """Shares that minimise (price + p) g − gain f(g) + short max(0, R − g), (T, N)."""
    cost = (p.price + price)[:, None]
    least = np.minimum(p.min_share, p.max_share)

    def inner(cost: Array) -> Array:
        curved = np.sqrt(gain * p.kappa * (1 + p.kappa) / np.maximum(cost, 1e-300)) - p.kappa
        share = np.where(p.kappa == 0, np.where(gain > cost, np.inf, 0.0), curved)
        return np.clip(np.where(cost < 0, np.inf, share), 0.0, p.max_share)

    # The slope changes at R alone: either side's optimum lies on that side, or the corner is best.
    return np.maximum(inner(cost), np.minimum(inner(cost - p.short), least))


def _capacity_prices(p: Programme, gain: Array) -> Array:
    """Prices of a GPU at which no more than G are wanted, by bisection: they maximise the dual, (T,)."""
    steepest = np.where(p.kappa == 0, 1.0, (1 + p.kappa) / np.where(p.kappa == 0, 1, p.kappa))
    low, high = np.zeros(len(gain)), (gain * steepest + p.short).max(axis=1)
    for _ in range(60):
        middle = 0.5 * (low + high)
        wanted = best_shares(p, gain, middle).sum(axis=1) > p.gpus
        low, high = np.where(wanted, middle, low), np.where(wanted, high, middle)
    return high
