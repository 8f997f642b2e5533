"""MaxWeight: the most pressure taken off the queues in this step."""

import numpy as np

from baselines.online.rows import decide
from baselines.online.water_filling import THROUGHPUT, fill, spread
from gpualloc_env.compiled import compiled
from gpualloc_env.simulation.curves import share_to_empty
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array


@compiled
def relieve(
    queue: AnyArray,
    throughput: AnyArray,
    kappa: AnyArray,
    priority: AnyArray,
    held: AnyArray,
    loading: AnyArray,
    dt: float,
    gpus: float,
    most: float,
    slice_: float,
    reallocation_s: float,
    deadband: float,
    price: float,
    standby: float,
    share_the_rest: bool,
    room: AnyArray,
    granted: AnyArray,
) -> None:
    """Write the shares, (B, N) [GPU], that maximise Σ ω q T f(g) − price Σ g, standby ≤ g ≤ need.

    `room` is for (3, N) numbers. O(N) for each halving of the multiplier's bracket.
    """
    weight, least, need = room[0], room[1], room[2]
    count = queue.shape[1]
    for b in range(queue.shape[0]):
        for i in range(count):
            weight[i] = queue[b, i] / priority[b, i] * throughput[b, i]
            least[i] = min(standby, most)
            wanted = share_to_empty(
                queue[b, i],
                throughput[b, i],
                kappa[b, i],
                held[b, i],
                loading[b, i],
                dt,
                most,
                slice_,
                reallocation_s,
                deadband,
            )
            need[i] = max(least[i], wanted)
        fill(THROUGHPUT, weight, kappa[b], least, need, gpus, price, granted[b])
        if share_the_rest:
            spread(granted[b], gpus, most)


def relieved(view: View, price: float, standby: float, share_the_rest: bool) -> Array:
    """Shares of the platform that maximise the weighted service less its price.

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    columns = (view.queue, view.throughput, view.kappa, view.priority, view.share, view.loading)
    return decide(
        relieve,
        view,
        columns,
        view.dt,
        view.gpus,
        min(view.gpus, view.max_share),
        view.slice,
        view.reallocation_s,
        view.deadband,
        price,
        standby,
        share_the_rest,
        np.empty((3, view.queue.shape[-1])),
    )


def max_weight(view: View) -> Array:
    """Maximise Σ ω_i q_i µ_i(g_i) over the shares, no share beyond what empties its queue.

    The MaxWeight (back-pressure) rule of Tassiulas and Ephremides, IEEE Transactions on
    Automatic Control 37 (1992), weighted by ω = 1/P. The programme is concave and separable: with a
    saturating curve g = √(ω q T (1 + κ) κ / ν) − κ at the price ν that fills the platform. What is
    left is shared equally. O(N) for each of some 50 halvings.

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    return relieved(view, 0.0, 0.0, True)
