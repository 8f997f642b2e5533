import pytest
from support.examples import example

pytest.importorskip("benchmarl")


@pytest.mark.slow
def test_mappo_trains_on_the_parallel_interface():
    assert float(example("benchmarl_mappo.py", "--steps", 3000).split()[-1]) < 0
