"""A training run short enough for tests, how to interrupt it, and what it decides by torch alone."""

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

import training.train
from gpualloc_env.simulation.observation import observe
from training.artifacts.policies import read_transform
from training.learning.allocators.action_transform import told

TRAINED = {
    "scenario": "serverless",
    "allocator": "ppo",
    "steps": 20,
    "total_steps": 2000,
    "num_envs": 8,
    "rollout_steps": 32,
    "batch_size": 64,
    "checkpoint_every": 1000,
    "validation_episodes": 32,
    "progress": False,
}


class Interruption(BaseException):
    """Ends a run at a moment of the test's choice, like a signal."""


def interrupt(config, checkpoints):
    """Train until the run has kept so many checkpoints, and end it before it keeps another."""
    real, kept = training.train.save, []

    def save(*arguments):
        if len(kept) == checkpoints:
            raise Interruption
        kept.append(real(*arguments))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.train, "save", save)
        with pytest.raises(Interruption):
            training.train.main(config)


def torch_shares(run, observation, view=None, scenario=None):
    """What a run's model decides, by torch, told of a scenario or not: (B, N) for (B, N, F)."""
    model, transform = PPO.load(run / "model.zip", device="cpu"), read_transform(run)
    policy = model.policy.double() if model.policy.network == "shared" else model.policy
    with torch.no_grad():
        actions = policy.most_likely(
            torch.as_tensor(np.asarray(observation)).to(policy.log_std.dtype)
        ).numpy()
    return (told(transform, scenario) if scenario else transform)(observation, actions, view)


def torch_policy(run, scenario):
    """The policy of a run's model for a scenario, by torch."""
    return lambda view: torch_shares(run, observe(view), view, scenario)
