"""Round-robin over whole GPUs."""

import numpy as np

from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.shares import NEGLIGIBLE
from gpualloc_env.simulation.state import Array


def round_robin(view: View) -> Array:
    """Give the whole platform to the agent after the one that held it, the first agent first.

    The round-robin baseline of arXiv 2512.22149, section IV: agent t mod N in step t. O(N).

    Returns:
        Fractions of the platform, shaped as `view.queue`.
    """
    agents = view.queue.shape[-1]
    turn = np.where(view.share.max(axis=-1) > NEGLIGIBLE, (view.share.argmax(axis=-1) + 1) % agents, 0)
    return (np.arange(agents) == np.asarray(turn)[..., None]).astype(np.float64)
