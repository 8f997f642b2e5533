"""One call of a compiled kernel for a single view and for a batch."""

from collections.abc import Callable

import numpy as np

from gpualloc_env.observation import View
from gpualloc_env.state import AnyArray, Array


def decide(
    kernel: Callable[..., None], view: View, numbers: tuple[AnyArray, ...], *settings: float | AnyArray
) -> Array:
    """Fractions of the platform, shaped as `view.queue`, that a kernel writes for (B, N) agents.

    Args:
        kernel: called as kernel(*numbers, *settings, fractions) with arrays of (B, N).
        view: what is decided on.
        numbers: the columns of the view that the kernel reads, each (N,) or (B, N).
        settings: all else that the kernel reads, handed on as it is.
    """
    fractions = np.empty(view.queue.shape)
    if fractions.ndim == 1:
        kernel(*[column[None] for column in numbers], *settings, fractions[None])
    else:
        kernel(*numbers, *settings, fractions)
    return fractions
