import pytest
from support.examples import example

pytest.importorskip("ray.rllib")


@pytest.mark.slow
def test_ppo_trains_three_iterations_by_id_with_two_workers():
    lines = example("rllib_ppo.py", "--iterations", 3, "--workers", 2).splitlines()
    returns = [float(line.split()[-1]) for line in lines if line.startswith("mean return")]
    assert len(returns) == 3 and max(returns) < 0
