"""Algorithm 1 of the paper, on the step's inflow and on the smoothed rate."""

from gpualloc_env.allocator.algorithm_1 import algorithm_1
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


def adaptive(view: View) -> Array:
    """Algorithm 1 on the requests that arrived in this step, as the paper's simulation runs it.

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    return algorithm_1(view.inflow, view.min_share, view.priority, view.gpus)


def adaptive_smoothed(view: View) -> Array:
    """Algorithm 1 on the arrival rate smoothed over 10 s.

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    return algorithm_1(view.rate, view.min_share, view.priority, view.gpus)
