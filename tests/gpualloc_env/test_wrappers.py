import copy
import re
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RescaleAction
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from gpualloc_env import command, sb3_vec_env
from gpualloc_env.action_transform import simplex
from gpualloc_env.doors import needed
from gpualloc_env.wrappers import SimplexAction


def logits_of(calls, *shape):
    return np.random.default_rng(0).normal(0, 3, (calls, *shape)).astype(np.float32)


def test_a_simplex_action_is_training_s_mapping_of_logits():
    env, plain = SimplexAction(gym.make("GPUAlloc-v0", steps=5)), gym.make("GPUAlloc-v0", steps=5)
    assert env.action_space == simplex(4).space and env.action_space.shape == (5,)
    env.reset(seed=3)
    plain.reset(seed=3)
    for logits in logits_of(5, 5):
        shares = simplex(4)(np.zeros((1, 4, 1), np.float32), logits[None])[0]
        assert env.step(logits)[1] == plain.step(shares)[1]
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.action_space == env.action_space
    assert copy.deepcopy(env).reset(seed=1)[0].shape == (4, 26)


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync"])
def test_in_a_batch_a_simplex_action_is_the_one_of_each_environment(mode):
    batch = SimplexAction(gym.make_vec("GPUAlloc-v0", 3, vectorization_mode=mode, steps=4))
    alone = SimplexAction(gym.make("GPUAlloc-v0", steps=4))
    assert batch.action_space.shape == (3, 5) and batch.single_action_space == alone.action_space
    batch.reset(seed=5)
    alone.reset(seed=7)
    for logits in logits_of(4, 3, 5):
        assert batch.step(logits)[1][2] == alone.step(logits[2])[1]


def test_a_wrong_action_or_environment_is_refused_by_its_shape():
    env = SimplexAction(gym.make("GPUAlloc-v0"))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"5 logits, one for each agent and one for idle.*got shape \(4,\)"):
        env.step(np.zeros(4))
    with pytest.raises(ValueError, match=r"fractions of the platform, got Discrete\(2\)"):
        SimplexAction(gym.make("CartPole-v1"))
    ones = np.ones(4, np.float32)
    for other in (env, RescaleAction(gym.make("GPUAlloc-v0"), -ones, ones), gym.make("Pendulum-v1")):
        with pytest.raises(ValueError, match="needs actions of N fractions of the platform, got Box"):
            SimplexAction(other)


@pytest.mark.parametrize("shape", [(3, 4), (3, 9), (2, 5), (6, 5), (1, 5), (5,)])
def test_actions_of_another_shape_are_refused_by_the_batch_for_stable_baselines3(shape):
    env = sb3_vec_env(3, "paper", seed=0)
    env.reset()
    with pytest.raises(
        ValueError, match=rf"actions must have shape \(3, 5\), .*got shape {re.escape(str(shape))}"
    ):
        env.step(np.zeros(shape, np.float32))


def test_the_batch_for_stable_baselines3_plays_the_episodes_of_the_batch_in_same_step_mode():
    env = sb3_vec_env(3, "paper-spike", seed=4, steps=3, load=0.5)
    batch = SimplexAction(
        gym.make_vec(
            "GPUAlloc-v0",
            3,
            scenario="paper-spike",
            steps=3,
            load=0.5,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    )
    assert (env.reset() == batch.reset(seed=4)[0]).all()
    for logits in logits_of(7, 3, 5):
        seen, reward, done, infos = env.step(logits)
        expected = batch.step(logits)
        assert (seen == expected[0]).all() and (done == expected[3]).all()
        assert reward == pytest.approx(expected[1])
        for k in np.flatnonzero(done):
            assert (infos[k]["terminal_observation"] == expected[4]["final_obs"][k]).all()
            assert infos[k]["objective"] == expected[4]["final_info"]["objective"][k]


def test_a_learner_of_stable_baselines3_learns_on_the_batch_and_acts_in_the_single_environment(tmp_path):
    model = PPO("MlpPolicy", sb3_vec_env(2, seed=0, steps=8), n_steps=8, batch_size=16, n_epochs=1, seed=0)
    model.learn(32)
    log = tmp_path / "of.monitor.csv"
    env = Monitor(SimplexAction(gym.make("GPUAlloc-v0", steps=8)), str(log), info_keywords=("objective",))
    evaluate_policy(model, env, n_eval_episodes=2)
    action, _ = model.predict(env.reset(seed=0)[0])
    for _ in range(8):
        *_, info = env.step(action)
    env.close()
    assert info["episode"]["objective"] == pytest.approx(-info["episode"]["r"] / 8, abs=1e-6)
    assert float(log.read_text().split(",")[-1]) == info["objective"]


def test_the_command_without_its_libraries_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: tyro is not installed: pip install 'gpualloc-env[train]'\n"


def test_a_library_that_is_not_installed_is_named_with_the_remedy():
    with pytest.raises(
        ImportError, match=r"^no_such_library is not installed: pip install 'gpualloc-env\[mo\]'$"
    ):
        needed("no_such_library.part", "mo")
