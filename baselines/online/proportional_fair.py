"""Proportional fairness."""

from dataclasses import dataclass

import numpy as np

from baselines.online.rows import decide
from baselines.online.water_filling import CLAIM, LOGARITHM, fill
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import largest_share
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _divide(packed: Packed, horizon_s: float, claims: AnyArray, granted: AnyArray) -> None:
    """Write the proportionally fair shares, (B, N) [GPU]; `claims` is workspace, (N,) of CLAIM."""
    platform = packed.settings[0]
    most = largest_share(platform)
    for b in range(granted.shape[0]):
        for i in range(granted.shape[1]):
            now, agent, claim = packed.state[b, i], packed.agents[b, i], claims[i]
            claim.weight = (now.queue + horizon_s * now.rate) / agent.priority
            claim.kappa, claim.least, claim.most = agent.kappa, 0.0, most
        fill(LOGARITHM, claims, platform.gpus, 0.0, granted[b])


@dataclass(frozen=True)
class ProportionalFair:
    """Maximise Σ w_i log µ_i(g_i), with w_i = ω_i (q_i + λ_i horizon) the requests at hand and expected.

    Kelly, Maulloo and Tan, Journal of the Operational Research Society 49 (1998), weighted by the
    requests in the system as in Massoulié, Annals of Applied Probability 17 (2007). A linear
    agent gets w / Σ w, a saturating one g (g + κ) = w κ / ν. O(N) for each of some 50 halvings.
    """

    horizon_s: float = tunable(1.0, 0.01, 30.0, log=True)
    """How far ahead arrivals count as much as requests that wait [s]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return decide(_divide, view, self.horizon_s, np.empty(view.queue.shape[-1], CLAIM))
