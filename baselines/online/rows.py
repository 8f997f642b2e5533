"""One call of a compiled kernel for a view and for a batch, and what a policy remembers between calls."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from gpualloc_env.simulation.observation import View, pack
from gpualloc_env.simulation.state import AnyArray, Array


def decide(kernel: Callable[..., None], view: View, *constants: float | AnyArray) -> Array:
    """Fractions of the platform, shaped as `view.queue`, from the shares that a kernel writes.

    Args:
        kernel: called as kernel(packed, *constants, shares): it reads the records of the view, `Packed`,
            and writes shares, (B, N) [GPU], where B is 1 for a view of (N,) arrays.
        view: what is decided on.
        constants: all else that the kernel reads, and its workspace; handed on as they are.
    """
    packed = pack(view)
    shares = np.empty(packed.state.shape)
    kernel(packed, *constants, shares)
    shares /= view.gpus
    return shares.reshape(view.queue.shape)


P = TypeVar("P", bound="Remembering")


@dataclass
class Memory:
    """What a policy remembers of the steps of a rollout."""

    rows: Array = field(default_factory=lambda: np.empty((0, 0, 0)))
    """(R, B, N), as many numbers of each agent as the policy asks for"""
    steps: int = 0

    def ring(self, rows: int, view: View) -> Array:
        """The rows; zeros, and no steps, where so many were never asked for or the batch is another one."""
        shape = (rows, *np.atleast_2d(view.queue).shape)
        if self.rows.shape != shape:
            self.rows, self.steps = np.zeros(shape), 0
        return self.rows


@dataclass(frozen=True)
class Remembering:
    """A policy with memory: every rollout needs an instance of its own, which `fresh` makes."""

    _memory: Memory = field(default_factory=Memory, init=False, repr=False, compare=False)

    def fresh(self: P) -> P:
        """One with the same constants that remembers nothing."""
        return replace(self)
