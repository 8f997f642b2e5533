import pytest
from support.examples import example

pytest.importorskip("ray.rllib")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [(), ("--multi-agent",)], ids=["single", "multi-agent"])
def test_ppo_trains_three_iterations_with_two_workers(arguments):
    lines = example("rllib_ppo.py", "--iterations", 3, "--workers", 2, *arguments).splitlines()
    returns = [float(line.split()[-1]) for line in lines if line.startswith("mean return")]
    assert len(returns) == 3 and max(returns) < 0
