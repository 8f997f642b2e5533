"""The generalised cµ rule."""

from dataclasses import dataclass

from baselines.online.cmu import in_order
from baselines.tunable import tunable
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


@dataclass(frozen=True)
class GeneralisedCmu:
    """Serve in order of C'_i(a_i) µ_i, with a_i the age of the oldest request.

    The Gcµ rule of van Mieghem, Dynamic scheduling with convex delay costs, Annals of Applied
    Probability 5 (1995), for delay costs C_i(a) = ω_i a^p / p; p = 1 is the cµ rule. A request that has
    just arrived counts as one step old, as it will be when it is served. O(N²).
    """

    power: float = tunable(2.0, 1.0, 4.0)
    """p ≥ 1: how much more the second second of waiting costs than the first."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        urgency = (view.oldest_age + view.dt) ** (self.power - 1.0)
        return in_order(urgency * view.throughput / view.priority, view)
