"""Water-filling: one concave programme over shares, solved by bisection on its multiplier."""

from math import inf, sqrt

from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import needed_share
from gpualloc_env.simulation.state import AnyArray

# What is maximised, with f the agent's throughput curve and w its weight.
THROUGHPUT = 0  # Σ w f(g)
LOGARITHM = 1  # Σ w log f(g): proportional fairness
MINIMUM = 2  # the least f(g)/w, then the next: max-min fairness

_BRACKET = 16.0  # factor by which the bracket of the multiplier grows
_HALVINGS = 46  # of the bracket: its relative width ends near 1e-13


@compiled
def share_at(utility: int, weight: float, kappa: float, price: float, least: float, most: float) -> float:
    """The share at which the marginal utility of an agent is `price`, between `least` and `most`."""
    if weight <= 0.0 or most <= least:
        return least
    if price <= 0.0:
        return most
    ratio = weight / price
    if utility == MINIMUM:
        share = needed_share(ratio, kappa)
    elif utility == LOGARITHM:
        share = ratio
        if kappa > 0.0:
            # g (g + κ) = w κ / price, solved without cancellation.
            root = 4.0 * ratio / kappa
            share = inf if root == inf else 0.5 * kappa * (root / (1.0 + sqrt(1.0 + root)))
    elif kappa == 0.0:
        share = most if ratio > 1.0 else least
    else:
        share = sqrt(ratio * (1.0 + kappa) * kappa) - kappa
    return min(most, max(least, share))


@compiled
def _total(
    utility: int, weight: AnyArray, kappa: AnyArray, price: float, least: AnyArray, most: AnyArray
) -> float:
    total = 0.0
    for i in range(weight.shape[0]):
        total += share_at(utility, weight[i], kappa[i], price, least[i], most[i])
    return total


@compiled
def fill(
    utility: int,
    weight: AnyArray,
    kappa: AnyArray,
    least: AnyArray,
    most: AnyArray,
    capacity: float,
    floor: float,
    shares: AnyArray,
) -> float:
    """Maximise the utility of the shares, (N,) [GPU], with Σ g ≤ capacity and least ≤ g ≤ most.

    The Karush-Kuhn-Tucker conditions leave one unknown, the price ν of a GPU: every share is
    where its marginal utility is ν, or at a bound. Σ g falls with ν, which is bisected. Where
    it jumps (linear curves) the shares at both sides of the jump are mixed to fill the capacity.
    Where the least shares alone exceed the capacity, they are scaled to it. O(N) for each of
    some 50 halvings.

    Args:
        utility: THROUGHPUT, LOGARITHM or MINIMUM.
        weight: w, (N,); who weighs nothing gets the least share.
        kappa: κ, (N,) [GPU].
        least: (N,) [GPU].
        most: (N,) [GPU].
        capacity: [GPU].
        floor: lower bound of ν, the price at which a GPU is billed.
        shares: room for the result, (N,).

    Returns:
        ν.
    """
    count = weight.shape[0]
    guaranteed = heaviest = 0.0
    for i in range(count):
        guaranteed += least[i]
        heaviest = max(heaviest, weight[i])
    if guaranteed > capacity:
        for i in range(count):
            shares[i] = least[i] * (capacity / guaranteed)
        return inf
    low = high = floor
    if _total(utility, weight, kappa, floor, least, most) > capacity:
        high = max(floor, heaviest)
        while _total(utility, weight, kappa, high, least, most) > capacity:
            high *= _BRACKET
        low = high / _BRACKET
        while low > floor and _total(utility, weight, kappa, low, least, most) <= capacity:
            high = low
            low /= _BRACKET
        low = max(low, floor)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            if _total(utility, weight, kappa, middle, least, most) > capacity:
                low = middle
            else:
                high = middle
    above = _total(utility, weight, kappa, high, least, most)
    below = _total(utility, weight, kappa, low, least, most)
    mix = (capacity - above) / (below - above) if below > capacity else 0.0
    for i in range(count):
        share = share_at(utility, weight[i], kappa[i], high, least[i], most[i])
        more = share_at(utility, weight[i], kappa[i], low, least[i], most[i])
        shares[i] = share + mix * (more - share)
    return high


@compiled
def spread(shares: AnyArray, capacity: float, most: float) -> None:
    """Give what is left of the capacity to all agents in equal parts, each up to `most`; scale an excess."""
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
