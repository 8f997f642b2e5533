"""Frames per second of PPO with 64 environments, beside stable-baselines3's own vector environment.

A benchmark measures; nothing here fails because a machine is slow.
"""

from time import perf_counter

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from support.stepping import Loop, Reference

from gpualloc_env import load_scenario
from training.learning.sb3_vec_env import BatchVecEnv
from training.train import TrainConfig, with_defaults

CONFIG = with_defaults(TrainConfig(allocator="ppo", num_envs=64), "serverless")
FRAMES = CONFIG.num_envs * CONFIG.rollout_steps  # of an iteration


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def learner(env):
    """PPO with the hyper-parameters of `training.train`, on the environments alone."""
    return PPO(
        "MlpPolicy",
        VecNormalize(env, norm_obs=False, gamma=CONFIG.gamma),
        learning_rate=CONFIG.learning_rate,
        n_steps=CONFIG.rollout_steps,
        batch_size=CONFIG.batch_size,
        n_epochs=CONFIG.epochs,
        gamma=CONFIG.gamma,
        gae_lambda=CONFIG.gae_lambda,
        policy_kwargs={"net_arch": list(CONFIG.hidden)},
        seed=0,
        device="cpu",
    )


def iteration(model):
    """One rollout and its update."""
    return Loop(FRAMES, lambda: model.learn(FRAMES, reset_num_timesteps=False), model.env)


def timed(function, spent):
    """The function, and how long each of its calls took."""

    def run(*arguments, **keywords):
        start = perf_counter()
        result = function(*arguments, **keywords)
        spent.append(perf_counter() - start)
        return result

    return run


def test_ppo(benchmark, between, record, one_thread):
    ours = learner(BatchVecEnv(load_scenario("serverless"), CONFIG.num_envs, 0))
    theirs = learner(DummyVecEnv([lambda: gym.make("GPUAlloc-v0")] * CONFIG.num_envs))
    parts = {"environment": [], "policy": [], "update": []}
    ours.env.step = timed(ours.env.step, parts["environment"])
    ours.policy.forward = timed(ours.policy.forward, parts["policy"])
    ours.train = timed(ours.train, parts["update"])
    reference = Reference(iteration(theirs))
    faster = between(iteration(ours), reference, rounds=8)
    seconds = benchmark.stats.stats.data
    # The first iteration was not measured.
    shares = {
        name: sum(spent[len(spent) // (len(seconds) + 1) :]) / sum(seconds) for name, spent in parts.items()
    }
    shares["the rest"] = 1 - sum(shares.values())
    assert all(0 < share < 1 for share in shares.values())
    low, middle, high = np.quantile(faster, [0.25, 0.5, 0.75])
    record(
        "Training",
        f"PPO, {CONFIG.num_envs} environments",
        FRAMES / np.median(seconds),
        "frames/s",
        f"{middle:.2f} ({low:.2f} to {high:.2f}) times stable-baselines3 over its DummyVecEnv, "
        f"{np.median(reference.rates):,.0f} frames/s; "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items()),
    )
