"""Proportional fairness."""

from dataclasses import dataclass

import numpy as np

from baselines.online.rows import decide
from baselines.online.water_filling import LOGARITHM, fill
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _divide(
    queue: AnyArray,
    rate: AnyArray,
    kappa: AnyArray,
    priority: AnyArray,
    gpus: float,
    most: float,
    horizon_s: float,
    room: AnyArray,
    granted: AnyArray,
) -> None:
    """Write the proportionally fair shares, (B, N) [GPU]; `room` is for (3, N) numbers."""
    weight, least, limit = room[0], room[1], room[2]
    count = queue.shape[1]
    for b in range(queue.shape[0]):
        for i in range(count):
            weight[i] = (queue[b, i] + horizon_s * rate[b, i]) / priority[b, i]
            least[i], limit[i] = 0.0, most
        fill(LOGARITHM, weight, kappa[b], least, limit, gpus, 0.0, granted[b])


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
        return decide(
            _divide,
            view,
            (view.queue, view.rate, view.kappa, view.priority),
            view.gpus,
            min(view.gpus, view.max_share),
            self.horizon_s,
            np.empty((3, view.queue.shape[-1])),
        )
