import pytest
from support.examples import example


@pytest.mark.slow
def test_plain_ppo_trains_on_the_batch():
    learned, reference = example("sb3_ppo.py", "--steps", 2048, "--episodes", 1).splitlines()
    assert float(learned.split()[-1]) > 0 < float(reference.split()[-1])
