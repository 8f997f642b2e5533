"""Drift plus penalty: MaxWeight with the bill as penalty."""

from dataclasses import dataclass

from baselines.online.max_weight import relieved
from baselines.tunable import tunable
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


@dataclass(frozen=True)
class DriftPlusPenalty:
    """Maximise Σ ω_i q_i µ_i(g_i) − V Σ g_i: hold a GPU only where it relieves a queue enough.

    Neely, Stochastic Network Optimization with Application to Communication and Queueing Systems
    (2010): the drift of Σ ω q² / 2 plus V times the GPUs billed is bounded greedily in every step. A
    larger V trades longer queues, O(V), for a bill within O(1/V) of the least. O(N) for each of some 50
    halvings.
    """

    cost_weight: float = tunable(10.0, 0.01, 10_000.0, log=True)
    """V: price of one GPU [requests²/s]."""
    standby: float = tunable(0.01, 0.0, 0.15)
    """Share that everyone holds, so that no model is unloaded [GPU]."""

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return relieved(view, self.cost_weight, self.standby, False)
