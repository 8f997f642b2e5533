"""Static equal shares."""

import numpy as np

from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array


def static(view: View) -> Array:
    """Give every agent the fraction 1/N of the platform, whatever happens.

    The static baseline of arXiv 2512.22149, section IV. O(N).

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    return np.full(view.queue.shape, 1.0 / view.queue.shape[-1])
