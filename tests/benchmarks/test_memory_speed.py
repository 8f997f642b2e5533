"""The machine's memory bandwidth, and the steps per second that no batch in memory can exceed.

A benchmark measures; nothing here fails because a machine is slow.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.memory import bytes_per_step

from gpualloc_env import load_scenario

MEGABYTES = 512  # of each array: far more than any cache holds


@pytest.mark.parametrize("threads", [1, 2])
def test_copy(benchmark, record, threads):
    source = np.ones(MEGABYTES * 2**20 // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def copy():
            list(pool.map(lambda part: np.copyto(*part), parts))

        benchmark.pedantic(copy, rounds=10, warmup_rounds=1)
    assert (target == source).all()
    # As is usual, what is read and what is written both count, each once.
    bandwidth = 2 * source.nbytes / benchmark.stats.stats.median
    needed = bytes_per_step(load_scenario("serverless"))
    record(
        "Memory bandwidth",
        f"copy, {threads} thread{'s' if threads > 1 else ''}",
        bandwidth / 1e9,
        "GB/s",
        f"at most {bandwidth / needed / 1e6:.3g} million steps/s of `serverless` batches larger than the "
        f"caches: a step touches {needed:,} bytes or more",
    )
