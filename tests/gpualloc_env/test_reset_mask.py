"""Only an error of the mask is called one."""

import gymnasium as gym
import numpy as np
import pytest


@pytest.fixture
def batch():
    batch = gym.make_vec("GPUAlloc-v0", num_envs=3, steps=4)
    batch.reset(seed=0)
    return batch


@pytest.mark.parametrize("mask", [[True, False, True], np.ones(2, bool), np.ones(3), np.zeros(3, bool), "no"])
def test_a_wrong_mask_is_named(batch, mask):
    with pytest.raises(ValueError, match=r"options\['reset_mask'\]"):
        batch.reset(options={"reset_mask": mask})


def test_another_error_is_not_put_down_to_the_mask(batch, monkeypatch):
    def fails(*arguments):
        raise ValueError("the log has gone")

    monkeypatch.setattr(type(batch._batch), "reset", fails)
    for options in (None, {"reset_mask": np.array([True, False, False])}):
        with pytest.raises(ValueError, match=r"^the log has gone$"):
            batch.reset(seed=1, options=options)


def test_a_mask_resets_those_that_it_names(batch):
    before, _ = batch.reset(seed=7)
    batch.step(np.full((3, 4), 0.25))
    after, _ = batch.reset(seed=7, options={"reset_mask": np.array([True, False, True])})
    assert [(after[k] == before[k]).all() for k in range(3)] == [True, False, True]
