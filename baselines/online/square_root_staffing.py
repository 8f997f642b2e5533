"""Square-root staffing."""

from dataclasses import dataclass
from math import sqrt

from baselines.online.rows import decide
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import fit, needed_share, whole_slices
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _staff(
    rate: AnyArray,
    throughput: AnyArray,
    kappa: AnyArray,
    gpus: float,
    most: float,
    slice_: float,
    safety: float,
    granted: AnyArray,
) -> None:
    """Write the staffed shares, (B, N) [GPU]."""
    count = rate.shape[1]
    for b in range(rate.shape[0]):
        shares = granted[b]
        for i in range(count):
            staffed = rate[b, i] + safety * sqrt(rate[b, i])
            share = needed_share(staffed / throughput[b, i], kappa[b, i])
            shares[i] = min(most, whole_slices(share, slice_))
        fit(shares, gpus)


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
        columns = (view.rate, view.throughput, view.kappa)
        most = min(view.gpus, view.max_share)
        return decide(_staff, view, columns, view.gpus, most, view.slice, self.safety)
