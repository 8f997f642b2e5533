"""Receding-horizon control: a programme over the next steps, solved anew in every step."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from baselines.tunable import constants_of, tunable
from gpualloc_env.allocator.receding_horizon import CORRECTIONS, Assumed, Constants, of_each, plan
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


@dataclass(frozen=True)
class RecedingHorizon:
    """Minimise what the next steps are predicted to cost, act on the first step, and plan again.

    Model predictive control with one move held over the horizon (move blocking: Cagienard et al.,
    Journal of Process Control 17 (2007); the principle: Mayne et al., Automatica 36 (2000)):

        min over g   Σ_i [ω_i ∫ q_i(g_i) dt + ω_i terminal q_i(end)² / T_i + price g_i]
        subject to   Σ g_i ≤ G,  standby ≤ g_i ≤ max_share,

    with q_i the fluid queue of the environment itself: what waits now, the forecast of the
    arrivals, concave throughput, a model that still loads, and the time that a reallocation costs
    an agent unless it stays within the deadband of what it holds. Each agent's cost is convex in
    its share but for that exception. The capacity is priced instead of enforced: at a price ν
    every agent answers on its own, exactly, with the best of 51 shares and of those that cost no
    reallocation; the answers fall with ν, which is bisected until they fit. What then is left
    goes, piece by piece, where it saves most. The duality gap is that of the exceptions alone.
    O(N (51 steps + 40 log 51)) for each decision, and O(N) for each level handed out.
    """

    horizon_s: float = tunable(8.0, 1.0, 24.0)
    """Time that is predicted [s]."""
    inflow_weight: float = tunable(0.65, 0.0, 1.0)
    """Forecast of the arrivals: weight of this step's inflow against the smoothed rate."""
    persistence: float = tunable(0.9, 0.6, 1.0)
    """Forecast of the arrivals: what is left of their rate after a second; bursts end."""
    terminal: float = tunable(0.1, 0.0, 2.0)
    """Price of the queue at the end: a multiple of the time in which T would empty it."""
    bill: float = tunable(0.1, 0.0, 1.0)
    """Price of a step's bill of all GPUs, in seconds of the mean latency."""
    standby: float = tunable(0.01, 0.0, 0.1)
    """Share that everyone holds, so that no model is unloaded [GPU]."""

    @cached_property
    def constants(self) -> Array:
        """The fields in the order in which the compiled programme reads them."""
        return np.array(Constants(**constants_of(self)))

    def __call__(self, view: View) -> Array:
        """Fractions of the platform, shaped as `view.queue`."""
        return plan(view, self.constants)

    def assumed(self, view: View) -> Assumed:
        """What it assumes in each of B environments: its constants, and no corrections."""
        batch = view.queue[None] if view.queue.ndim == 1 else view.queue
        corrections = np.zeros((*batch.shape, len(CORRECTIONS)))
        return Assumed(of_each(self.constants, len(batch)), corrections)


@dataclass(frozen=True)
class RecedingHorizonBatch(RecedingHorizon):
    """Receding-horizon control whose rate depends on the batch, for servers of calls.

    T is the rate of a full batch of B calls. With n calls a server spends 1/T of its time on each as
    (1 − δ) + δ (a + c n)/n · B/(a + c B), where δ is the part of the time that a full batch decodes: it
    serves µ(g) n/(A + C n), with A = δ a B/(a + c B) and C = 1 − A/B. B and δ are not in the view, so they
    are constants. In the fluid, where a = 0, it is `RecedingHorizon`.
    """

    full_batch: float = tunable(64.0, 8.0, 256.0, log=True)
    """B, calls at which the nominal throughput is reached."""
    decoding: float = tunable(0.7, 0.0, 1.0)
    """δ, the part of its time that a full batch decodes."""
