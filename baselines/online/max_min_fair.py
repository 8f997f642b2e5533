"""Weighted max-min fairness."""

from dataclasses import dataclass

import numpy as np

from baselines.online.rows import decide
from baselines.online.water_filling import MINIMUM, fill, spread
from baselines.tunable import tunable
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import needed_share
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def _fill_up(
    queue: AnyArray,
    rate: AnyArray,
    throughput: AnyArray,
    kappa: AnyArray,
    priority: AnyArray,
    gpus: float,
    most: float,
    horizon_s: float,
    room: AnyArray,
    granted: AnyArray,
) -> None:
    """Write the max-min fair shares, (B, N) [GPU]; `room` is for (3, N) numbers."""
    weight, least, need = room[0], room[1], room[2]
    count = queue.shape[1]
    for b in range(queue.shape[0]):
        for i in range(count):
            demand = rate[b, i] + queue[b, i] / horizon_s
            weight[i], least[i] = 1.0 / priority[b, i], 0.0
            need[i] = min(most, needed_share(demand / throughput[b, i], kappa[b, i]))
        fill(MINIMUM, weight, kappa[b], least, need, gpus, 0.0, granted[b])
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
        return decide(
            _fill_up,
            view,
            (view.queue, view.rate, view.throughput, view.kappa, view.priority),
            view.gpus,
            min(view.gpus, view.max_share),
            self.horizon_s,
            np.empty((3, view.queue.shape[-1])),
        )
