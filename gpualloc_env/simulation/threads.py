"""Threads that share a batch: each takes a range of its environments."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

VARIABLE = "GPUALLOC_NUM_THREADS"
"""Environment variable: maximum number of threads of a batch made from now on; by default all cores."""


def _cores() -> int:
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not wanted.isdecimal() or int(wanted) == 0:
        raise ValueError(f"{VARIABLE} must be a number of threads, 1 or more, got {wanted!r}; or unset it")
    return int(wanted)


class Threads:
    """Run a compiled function on ranges of B environments, on as many cores as that is worth.

    Environments do not touch each other, so the result is the same, bit for bit, for any number.
    """

    def __init__(self, num_envs: int, smallest_range: int) -> None:
        """Choose ranges no smaller than is worth handing over; threads start when first needed."""
        self.count = max(1, min(_cores(), num_envs // smallest_range))
        self._ranges = list(pairwise(num_envs * k // self.count for k in range(self.count + 1)))
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def run(self, function: Callable[[int, int], object]) -> None:
        """Call `function(first, last)` for every range."""
        (first, last), *others = self._ranges
        if not others:
            function(first, last)
            return
        if self._pool is None or self._process != os.getpid():
            # Threads do not survive a fork.
            self._process = os.getpid()
            self._pool = ThreadPoolExecutor(len(others), thread_name_prefix="gpualloc")
        futures = [self._pool.submit(function, *limits) for limits in others]
        function(first, last)
        for future in futures:
            future.result()
