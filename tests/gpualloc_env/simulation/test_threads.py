import os

import pytest

from gpualloc_env.simulation.threads import VARIABLE, Threads


def test_the_environment_variable_limits_the_threads(monkeypatch):
    monkeypatch.setenv(VARIABLE, "3")
    assert Threads(1000, smallest_range=10).count == 3
    assert Threads(1000, smallest_range=500).count == 2
    monkeypatch.setenv(VARIABLE, "1")
    assert Threads(1000, smallest_range=10).count == 1
    monkeypatch.delenv(VARIABLE)
    assert 1 <= Threads(1000, smallest_range=1).count <= os.cpu_count()


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_wrong_number_of_threads_is_named_with_its_remedy(monkeypatch, value):
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ValueError, match=f"{VARIABLE} must be a number of threads, 1 or more, got '{value}'"):
        Threads(1000, smallest_range=10)


def test_every_range_is_run_once():
    seen = []
    Threads(10, smallest_range=1).run(lambda first, last: seen.extend(range(first, last)))
    assert sorted(seen) == list(range(10))
