"""One call of a compiled kernel for a single view and for a batch."""

from collections.abc import Callable

import numpy as np

from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import AnyArray, Array


def decide(
    kernel: Callable[..., None], view: View, numbers: tuple[AnyArray, ...], *settings: float | AnyArray
) -> Array:
    """Fractions of the platform, shaped as `view.queue`, whose shares a kernel writes for (B, N) agents.

    Args:
        kernel: called as kernel(*numbers, *settings, shares) with arrays of (B, N), shares in GPU.
        view: what is decided on.
        numbers: the columns of the view that the kernel reads, each (N,) or (B, N).
        settings: all else that the kernel reads, handed on as it is.
    """
    shares = np.empty(view.queue.shape)
    if shares.ndim == 1:
        kernel(*[column[None] for column in numbers], *settings, shares[None])
    else:
        kernel(*numbers, *settings, shares)
    shares /= view.gpus
    return shares
