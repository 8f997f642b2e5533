"""Throughput curves."""

import pytest

from gpualloc_env.simulation.curves import speedup


def test_curves_meet_at_nothing_and_at_a_whole_gpu():
    for kappa in (0.0, 0.5, 2.0):
        assert speedup(0.0, kappa) == 0 and speedup(1.0, kappa) == pytest.approx(1)
    assert speedup(0.5, 0.5) == 0.75 and speedup(0.5, 0.0) == 0.5
