import pytest
from support.examples import example


@pytest.mark.slow
@pytest.mark.parametrize(("script", "steps"), [("sb3_ppo.py", 2048), ("sb3_sac.py", 5100)])
def test_plain_algorithms_train_on_the_batch(script, steps):
    learned, reference = example(script, "--steps", steps, "--episodes", 1).splitlines()
    assert float(learned.split()[-1]) > 0 < float(reference.split()[-1])
