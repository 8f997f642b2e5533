import pytest
from support.examples import example


@pytest.mark.slow
def test_a_loop_in_one_file_trains_on_the_batch():
    assert float(example("cleanrl_ppo.py", "--steps", 4096, "--episodes", 1).split()[-1]) > 0
