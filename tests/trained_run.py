"""A training run short enough for tests, and what it decides by torch alone."""

import numpy as np
import torch
from stable_baselines3 import PPO

from gpualloc_env.observation import observe
from training.policies import read_transform

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


def torch_shares(run, observation, view=None, normalise=None):
    """What a run's model decides, by torch: (B, N) for (B, N, F)."""
    model, transform = PPO.load(run / "model.zip", device="cpu"), read_transform(run)
    seen = observation if normalise is None else normalise(observation)
    policy = model.policy.double() if model.policy.network == "shared" else model.policy
    with torch.no_grad():
        actions = policy.most_likely(torch.as_tensor(np.asarray(seen)).to(policy.log_std.dtype)).numpy()
    return transform(observation, actions, view)


def torch_policy(run):
    """The policy of a run's model, by torch."""
    return lambda view: torch_shares(run, observe(view), view)
