"""An environment over a log holds its log: what becomes of the file does not matter to it."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_text("something else")]
)
def test_copies_and_pickles_play_on_after_the_file_has_changed(tmp_path, change):
    path = tmp_path / "log.csv"
    path.write_text("time_s,agent\n" + "".join(f"{k / 7:.3f},nlp\n" for k in range(3000)))
    env = gym.make("GPUAlloc-v0", scenario="trace", trace=str(path))
    batch = gym.make_vec("GPUAlloc-v0", num_envs=3, scenario="trace", trace=str(path))
    env.reset(seed=3)
    batch.reset(seed=3)
    change(path)
    for each in (env, batch):
        expected, _ = each.reset(seed=5)
        assert np.array_equal(pickle.loads(pickle.dumps(each)).reset(seed=5)[0], expected)
        assert np.array_equal(copy.deepcopy(each).reset(seed=5)[0], expected)
