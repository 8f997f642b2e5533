"""Water-filling: one concave programme over shares, solved by bisection on its multiplier."""

from math import inf, sqrt
from typing import Any

import numpy as np

from gpualloc_env.compiled import compiled, inlined
from gpualloc_env.simulation.curves import needed_share
from gpualloc_env.simulation.state import AnyArray

# What is maximised, with f the agent's throughput curve and w its weight.
THROUGHPUT = 0  # Σ w f(g)
LOGARITHM = 1  # Σ w log f(g): proportional fairness
MINIMUM = 2  # the least f(g)/w, then the next: max-min fairness

CLAIM = np.dtype(
    [  # (N,), on what an agent's share depends
        ("weight", np.float64),  # w; who weighs nothing gets the least share
        ("kappa", np.float64),  # κ [GPU] of the saturating curve; 0 where throughput is linear
        ("least", np.float64),  # [GPU]
        ("most", np.float64),  # [GPU]
    ]
)

_BRACKET = 16.0  # factor by which the bracket of the multiplier grows
_HALVINGS = 46  # of the bracket: its relative width ends near 1e-13


@compiled
def share_at(utility: int, claim: Any, price: float) -> float:
    """The share [GPU] at which the marginal utility of a claim is `price`, between its least and most."""
    if claim.weight <= 0.0 or claim.most <= claim.least:
        return claim.least
    if price <= 0.0:
        return claim.most
    kappa, ratio = claim.kappa, claim.weight / price
    if utility == MINIMUM:
        share = needed_share(ratio, kappa)
    elif utility == LOGARITHM:
        share = ratio
        if kappa > 0.0:
            # g (g + κ) = w κ / price, solved without cancellation.
            root = 4.0 * ratio / kappa
            share = inf if root == inf else 0.5 * kappa * (root / (1.0 + sqrt(1.0 + root)))
    elif kappa == 0.0:
        share = claim.most if ratio > 1.0 else claim.least
    else:
        share = sqrt(ratio * (1.0 + kappa) * kappa) - kappa
    return min(claim.most, max(claim.least, share))


@compiled
def _total(utility: int, claims: AnyArray, price: float) -> float:
    """Sum of the shares [GPU] of (N,) claims at a price."""
    total = 0.0
    for i in range(claims.shape[0]):
        total += share_at(utility, claims[i], price)
    return total


@inlined
def _clearing_prices(
    utility: int, claims: AnyArray, capacity: float, floor: float, heaviest: float
) -> tuple[float, float]:
    """Prices next to each other: at the lower one the claims, (N,), exceed the capacity [GPU].

    At the higher one they do not. The two are one price, the floor, where they fit already at that.
    """
    low = high = floor
    if _total(utility, claims, floor) > capacity:
        high = max(floor, heaviest)
        while _total(utility, claims, high) > capacity:
            high *= _BRACKET
        low = high / _BRACKET
        while low > floor and _total(utility, claims, low) <= capacity:
            high = low
            low /= _BRACKET
        low = max(low, floor)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            if _total(utility, claims, middle) > capacity:
                low = middle
            else:
                high = middle
    return low, high


@compiled
def fill(utility: int, claims: AnyArray, capacity: float, floor: float, shares: AnyArray) -> float:
    """Maximise the utility of the shares, (N,) [GPU], with Σ g ≤ capacity and least ≤ g ≤ most.

    The Karush-Kuhn-Tucker conditions leave one unknown, the price ν of a GPU: every share is
    where its marginal utility is ν, or at a bound. Σ g falls with ν, which is bisected. Where
    it jumps (linear curves) the shares at both sides of the jump are mixed to fill the capacity.
    Where the least shares alone exceed the capacity, they are scaled to it. O(N) for each of
    some 50 halvings.

    Args:
        utility: THROUGHPUT, LOGARITHM or MINIMUM.
        claims: (N,) of CLAIM.
        capacity: [GPU].
        floor: lower bound of ν, the price at which a GPU is billed.
        shares: where the result is written, (N,).

    Returns:
        ν.
    """
    count = claims.shape[0]
    guaranteed = heaviest = 0.0
    for i in range(count):
        guaranteed += claims[i].least
        heaviest = max(heaviest, claims[i].weight)
    if guaranteed > capacity:
        for i in range(count):
            shares[i] = claims[i].least * (capacity / guaranteed)
        return inf
    low, high = _clearing_prices(utility, claims, capacity, floor, heaviest)
    above, below = _total(utility, claims, high), _total(utility, claims, low)
    mix = (capacity - above) / (below - above) if below > capacity else 0.0
    for i in range(count):
        share, more = share_at(utility, claims[i], high), share_at(utility, claims[i], low)
        shares[i] = share + mix * (more - share)
    return high


@compiled
def spread(shares: AnyArray, capacity: float, most: float) -> None:
    """Give what is left of the capacity to all agents in equal parts, each up to `most`; scale an excess.

    Shares are (N,) [GPU].
    """
    count = shares.shape[0]
    total = 0.0
    for i in range(count):
        total += shares[i]
    if total > capacity:
        for i in range(count):
            shares[i] *= capacity / total
        return
    more = (capacity - total) / count
    for i in range(count):
        shares[i] = min(most, shares[i] + more)
