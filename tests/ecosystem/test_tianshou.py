import gymnasium as gym
import numpy as np
import pytest

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
