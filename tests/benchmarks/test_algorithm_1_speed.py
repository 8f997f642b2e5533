"""Time of the paper's Algorithm 1, which grows in proportion to the number of agents.

A benchmark measures; nothing here fails because a machine is slow.
"""

import numpy as np
import pytest

from gpualloc_env.allocator.algorithm_1 import algorithm_1


@pytest.mark.parametrize("agents", [4, 300_000, 1_000_000])
def test_algorithm_1(benchmark, record, agents):
    generator = np.random.default_rng(0)
    rate, min_share = generator.random(agents), generator.random(agents) / agents
    priority = generator.integers(1, 4, agents).astype(float)
    calls = 1000 if agents == 4 else 1
    shares = algorithm_1(rate, min_share, priority, 1.0)
    benchmark.pedantic(
        algorithm_1, (rate, min_share, priority, 1.0), rounds=60, iterations=calls, warmup_rounds=2
    )
    median = benchmark.stats.stats.median
    note = f"{1e9 * median / agents:,.2f} ns an agent"
    record("Algorithm 1", f"{agents:,} agents", 1e6 * median, "µs", note)
    assert shares.sum() <= 1 + 1e-9
