"""MaxWeight: the most pressure taken off the queues in this step."""

import numpy as np

from baselines.online.rows import decide
from baselines.online.water_filling import CLAIM, THROUGHPUT, fill, spread
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import largest_share, share_to_empty
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def relieve(
    packed: Packed, price: float, standby: float, share_the_rest: bool, claims: AnyArray, granted: AnyArray
) -> None:
    """Write the shares, (B, N) [GPU], that maximise Σ ω q T f(g) − price Σ g, standby ≤ g ≤ need.

    `claims` is workspace, (N,) of CLAIM. O(N) for each halving of the multiplier's bracket.
    """
    platform = packed.settings[0]
    most = largest_share(platform)
    for b in range(granted.shape[0]):
        for i in range(granted.shape[1]):
            now, agent, claim = packed.state[b, i], packed.agents[b, i], claims[i]
            claim.weight, claim.kappa = now.queue / agent.priority * agent.throughput, agent.kappa
            claim.least = min(standby, most)
            claim.most = max(claim.least, share_to_empty(now, agent, platform))
        fill(THROUGHPUT, claims, platform.gpus, price, granted[b])
        if share_the_rest:
            spread(granted[b], platform.gpus, most)


def relieved(view: View, price: float, standby: float, share_the_rest: bool) -> Array:
    """Shares of the platform that maximise the weighted service less its price; arguments as in `relieve`.

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    claims = np.empty(view.queue.shape[-1], CLAIM)
    return decide(relieve, view, price, standby, share_the_rest, claims)


def max_weight(view: View) -> Array:
    """Maximise Σ ω_i q_i µ_i(g_i) over the shares, no share beyond what empties its queue.

    The MaxWeight (back-pressure) rule of Tassiulas and Ephremides, IEEE Transactions on
    Automatic Control 37 (1992), weighted by ω = 1/P. The programme is concave and separable: with a
    saturating curve g = √(ω q T (1 + κ) κ / ν) − κ at the price ν that fills the platform. What is
    left is shared equally. O(N) for each of some 50 halvings.

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    return relieved(view, 0.0, 0.0, True)
