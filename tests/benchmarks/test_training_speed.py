"""How fast PPO learns, beside stable-baselines3 over its own vector environment.

A benchmark measures; nothing here fails because a machine is slow.
"""

import subprocess
import sys
from dataclasses import replace
from time import perf_counter, time

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from support.stepping import Loop, Reference

from gpualloc_env import load_scenario
from gpualloc_env.sb3 import sb3_vec_env
from gpualloc_env.simulation.observation import observe
from training.artifacts.training_record import read_record
from training.learning.learner import make_ppo, with_defaults
from training.learning.parallel_ppo import Team
from training.learning.selection import baseline_objectives, mean_objective
from training.learning_curves import wall_times
from training.train import TrainConfig

CONFIG = with_defaults(TrainConfig(allocator="ppo"), "serverless")
FRAMES = CONFIG.num_envs * CONFIG.rollout_steps  # of an iteration
EVERY = 5 * FRAMES  # steps between two validations
STEPS = 24 * FRAMES  # of a run
MOST_STEPS = 20 * EVERY  # after which stable-baselines3 is given up


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def theirs():
    """stable-baselines3 over its own vector environment, with the hyper-parameters of `training.train`."""
    env = DummyVecEnv([lambda: gym.make("GPUAlloc-v0")] * CONFIG.num_envs)
    return PPO(
        "MlpPolicy",
        VecNormalize(env, norm_obs=False, gamma=CONFIG.gamma),
        learning_rate=CONFIG.learning_rate,
        n_steps=CONFIG.rollout_steps,
        batch_size=CONFIG.batch_size,
        n_epochs=CONFIG.epochs,
        gamma=CONFIG.gamma,
        gae_lambda=CONFIG.gae_lambda,
        policy_kwargs={"net_arch": list(CONFIG.hidden), "log_std_init": np.log(CONFIG.initial_std)},
        seed=0,
        device="cpu",
    )


def ours():
    """The learner of `training.train` on the batch alone; two processes share each gradient step."""
    env = sb3_vec_env(CONFIG.num_envs, load_scenario("serverless"), seed=0)
    return make_ppo(replace(CONFIG, device="cpu"), VecNormalize(env, norm_obs=False, gamma=CONFIG.gamma))


def iteration(model):
    """One rollout and its update, without the start of helpers, which a run has once."""
    return Loop(FRAMES, lambda: PPO.learn(model, FRAMES, reset_num_timesteps=False), model.env)


def timed(function, spent):
    """The function, and how long each of its calls took."""

    def run(*arguments, **keywords):
        start = perf_counter()
        result = function(*arguments, **keywords)
        spent.append(perf_counter() - start)
        return result

    return run


def test_ppo(benchmark, between, record, one_thread):
    model = ours()
    parts = {"environment": [], "policy": [], "update": []}
    model.env.step = timed(model.env.step, parts["environment"])
    model.policy.forward = timed(model.policy.forward, parts["policy"])
    model.train = timed(model.train, parts["update"])
    reference = Reference(iteration(theirs()))
    with Team(model) as model._team:
        faster = between(iteration(model), reference, rounds=8)
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


@pytest.mark.parametrize(
    ("allocator", "passed", "name"),
    [("ppo", "adaptive", "Algorithm 1"), ("ppo-residual", "receding-horizon", "receding-horizon")],
)
def test_seconds_until_a_baseline_is_passed(benchmark, record, tmp_path, allocator, passed, name):
    level = baseline_objectives([load_scenario("serverless")], TrainConfig.validation_episodes)[passed]
    run, starts = tmp_path / "run", []
    command = [sys.executable, "-m", "training.train", "--scenario", "serverless", "--allocator", allocator]
    command += ["--total-steps", str(STEPS), "--validate-every", str(EVERY), "--no-progress"]

    def train():
        starts.append(time())
        subprocess.run([*command, "--out", str(run)], check=True, stdout=subprocess.DEVNULL)

    benchmark.pedantic(train, rounds=1)
    times, points = wall_times(run), read_record(run).curve
    passed_at, (step, _) = next(
        validated for validated in zip(times[1:], points[1:], strict=True) if validated[1][1] < level
    )
    record(
        "Training",
        f"`{allocator}` passes {name} on the validation episodes of `serverless`",
        passed_at - starts[0],
        "s",
        f"after the start of the command, {times[0] - starts[0]:.1f} s of it before the first step; at "
        f"step {step:,} of {STEPS:,}, validated every {EVERY:,}",
    )


def test_seconds_until_stable_baselines3_passes_algorithm_1(benchmark, record, one_thread):
    scenario = load_scenario("serverless")
    level = baseline_objectives([scenario], TrainConfig.validation_episodes)["adaptive"]
    model, steps, objective = theirs(), 0, np.inf

    def policy(view):
        return np.clip(model.predict(observe(view), deterministic=True)[0], 0.0, 1.0).astype(np.float64)

    def learn():
        nonlocal steps, objective
        while steps < MOST_STEPS and objective > level:
            model.learn(EVERY, reset_num_timesteps=False)
            steps += EVERY
            objective = mean_objective(policy, scenario, TrainConfig.validation_episodes)

    benchmark.pedantic(learn, rounds=1)
    record(
        "Training",
        "stable-baselines3 over its DummyVecEnv, the same settings, a constant learning rate",
        benchmark.stats.stats.data[0],
        "s",
        f"until J = {objective:.2f} at step {steps:,}"
        + (", and Algorithm 1 is passed" if objective < level else f"; Algorithm 1 has {level:.2f}"),
    )
