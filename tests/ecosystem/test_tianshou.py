import gymnasium as gym
import numpy as np
import pytest
from support.examples import example

from gpualloc_env.wrappers import SimplexAction

envs = pytest.importorskip("tianshou.env")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_its_vector_environment_steps_single_environments():
    batch = envs.DummyVectorEnv([lambda: SimplexAction(gym.make("GPUAlloc-v0", steps=3))] * 2)
    alone = SimplexAction(gym.make("GPUAlloc-v0", steps=3))
    batch.seed([4, 5])  # which begins an episode
    batch.reset()
    alone.reset(seed=5)
    alone.reset()
    for logits in np.random.default_rng(0).normal(size=(3, 2, 5)).astype(np.float32):
        _, reward, _, truncated, infos = batch.step(logits)
        _, expected, _, over, info = alone.step(logits[1])
        assert reward[1] == expected and truncated[1] == over
        assert infos[1]["objective"] == info["objective"]


def test_ppo_trains_on_single_environments():
    pytest.importorskip("tianshou.algorithm")  # of version 2
    learned, reference = example("tianshou_ppo.py", "--steps", 2048, "--episodes", 1).splitlines()[-2:]
    assert float(learned.split()[-1]) > 0 < float(reference.split()[-1])
