"""Square-root staffing."""

from dataclasses import dataclass
from math import sqrt

from baselines.online.rows import decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, largest_share, needed_share, whole_slices
from gpualloc_env.simulation.observation import Packed, View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _staff(packed: Packed, safety: float, granted: AnyArray) -> None:
    """Write the staffed shares, (B, N) [GPU]."""
    platform = packed.settings[0]
    most = largest_share(platform)
    for b in range(granted.shape[0]):
        for i in range(granted.shape[1]):
            rate, agent = packed.state[b, i].rate, packed.agents[b, i]
            staffed = rate + safety * sqrt(rate)
            share = needed_share(staffed / agent.throughput, agent.kappa)
            granted[b, i] = min(most, whole_slices(share, platform.slice))
        fit(granted[b], platform.gpus)


@dataclass(frozen=True)
class SquareRootStaffing:
    """Give each agent the share that serves λ_i + β √λ_i, and no more.

    Halfin and Whitt, Operations Research 29 (1981): safety capacity in proportion to the standard
    deviation of Poisson arrivals. λ is the smoothed rate; shares that exceed the platform are
    scaled to it. It does not look at its queues. O(N).
    """

    safety: float = tunable(2.0, 0.0, 20.0)
    """β [√(requests/s)]"""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return decide(_staff, view, self.safety)
