"""One call of a compiled kernel for a single view and for a batch."""

from collections.abc import Callable

import numpy as np

from gpualloc_env.simulation.observation import View, pack
from gpualloc_env.simulation.state import AnyArray, Array


def decide(kernel: Callable[..., None], view: View, *constants: float | AnyArray) -> Array:
    """Fractions of the platform, shaped as `view.queue`, from the shares that a kernel writes.

    Args:
        kernel: called as kernel(packed, *constants, shares): it reads the records of the view, `Packed`,
            and writes shares, (B, N) [GPU], where B is 1 for a view of (N,) arrays.
        view: what is decided on.
        constants: all else that the kernel reads, and room that it needs; handed on as they are.
    """
    packed = pack(view)
    shares = np.empty(packed.state.shape)
    kernel(packed, *constants, shares)
    shares /= view.gpus
    return shares.reshape(view.queue.shape)
