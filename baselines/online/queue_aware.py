"""Algorithm 1 of the paper, made aware of its queues."""

from dataclasses import dataclass

from baselines.online.adaptive import algorithm_1
from baselines.tunable import tunable
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


@dataclass(frozen=True)
class QueueAware:
    """Algorithm 1 of arXiv 2512.22149 with λ_i + q_i / horizon in place of λ_i.

    The demand is the rate at which an agent would have to serve to keep up with its smoothed
    arrivals and to be rid of its queue within the horizon. O(N).
    """

    horizon_s: float = tunable(2.0, 0.2, 60.0, log=True)
    """Time within which a queue should be served [s]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        demand = view.rate + view.queue / self.horizon_s
        return algorithm_1(demand, view.min_share, view.priority, view.gpus)
