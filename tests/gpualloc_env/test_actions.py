"""Actions that are no real numbers are refused, and change nothing."""

import gymnasium as gym
import numpy as np
import pytest

from gpualloc_env import Batch, load_scenario

WRONG = {
    "complex128": np.full(4, 0.1 + 1j),
    "complex64": np.full(4, 0.1, np.complex64),
    "<U3": np.array(["0.1"] * 4),
    "|S3": np.array([b"0.1"] * 4),
    "datetime64": np.array(["2026-01-01"] * 4, "datetime64[D]"),
    "timedelta64": np.ones(4, "timedelta64[s]"),
    "object": np.array([0.1, None, 0.1, 0.1]),
    "mask": np.ma.masked_array(np.full(4, 0.1, np.float32), [0, 1, 0, 0]),
}
RIGHT = [np.full(4, 0.25, dtype) for dtype in (np.float16, np.float32, np.float64, np.longdouble, ">f4")] + [
    [0.25] * 4,
    np.array([1, 0, 0, 0]),
    np.array([True, False, False, False]),
    np.full((4, 2), 0.25)[:, 0],
]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_real_number_is_refused_by_name(name):
    env = gym.make("GPUAlloc-v0", steps=3)
    env.reset(seed=0)
    with pytest.raises(TypeError, match=f"action must .*{name}".replace("|", r"\|")):
        env.step(WRONG[name])
    batch = Batch(load_scenario("serverless", steps=3), 1)
    batch.reset()
    with pytest.raises(TypeError, match=f"shares must .*{name}".replace("|", r"\|")):
        batch.step(WRONG[name][None])
    assert batch.clock[0] == 0 and env.unwrapped.view.share.sum() == 0


@pytest.mark.parametrize("action", RIGHT)
def test_real_numbers_of_every_kind_are_taken(action):
    rewards = []
    for given in (action, np.asarray(action, np.float64)):
        env = gym.make("GPUAlloc-v0", steps=3)
        env.reset(seed=0)
        rewards.append(env.step(given)[1])
    assert rewards[0] == rewards[1]
