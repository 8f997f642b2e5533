"""Weighted max-min fairness."""

from dataclasses import dataclass

import numpy as np

from baselines.online.rows import decide
from baselines.online.water_filling import CLAIM, MINIMUM, fill, spread
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import largest_share, needed_share
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _fill_up(packed: Packed, horizon_s: float, claims: AnyArray, granted: AnyArray) -> None:
    """Write the max-min fair shares, (B, N) [GPU]; `claims` is workspace, (N,) of CLAIM."""
    platform = packed.settings[0]
    gpus, most = platform.gpus, largest_share(platform)
    for b in range(granted.shape[0]):
        for i in range(granted.shape[1]):
            now, agent, claim = packed.state[b, i], packed.agents[b, i], claims[i]
            demand = now.rate + now.queue / horizon_s
            claim.weight, claim.kappa, claim.least = 1.0 / agent.priority, agent.kappa, 0.0
            claim.most = min(most, needed_share(demand / agent.throughput, agent.kappa))
        fill(MINIMUM, claims, gpus, 0.0, granted[b])
        spread(granted[b], gpus, most)


@dataclass(frozen=True)
class MaxMinFair:
    """Raise f_i(g_i) / ω_i of all agents together; who has all that it demands drops out.

    Weighted max-min fairness by water-filling: Bertsekas and Gallager, Data Networks (1992),
    section 6.5.2. An agent demands λ_i + q_i / horizon; what remains when all demands are met is shared
    equally. O(N) for each of some 50 halvings.
    """

    horizon_s: float = tunable(2.0, 0.2, 60.0, log=True)
    """Time within which a queue should be served [s]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return decide(_fill_up, view, self.horizon_s, np.empty(view.queue.shape[-1], CLAIM))
