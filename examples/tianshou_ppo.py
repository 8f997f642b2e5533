"""PPO of Tianshou 2 on single environments, against Algorithm 1 on 20 held-out episodes."""

import argparse

import gymnasium as gym
import numpy as np
import torch
from gymnasium.wrappers import FlattenObservation
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from torch.distributions import Independent, Normal

from baselines import adaptive
from gpualloc_env import evaluate
from gpualloc_env.action_transform import simplex
from gpualloc_env.wrappers import SimplexAction

ENVS, ROLLOUT = 16, 64


def make():
    """One environment, its observation as a vector."""
    return FlattenObservation(SimplexAction(gym.make("GPUAlloc-v0")))


def main(steps: int, episodes: int) -> None:
    """Train for so many steps, and judge on so many episodes."""
    np.random.seed(0)  # noqa: NPY002  Tianshou draws from the global generator
    torch.manual_seed(0)
    envs = DummyVectorEnv([make] * ENVS)
    envs.seed(0)
    one = make()  # Tianshou's batch shows the spaces below all wrappers
    space, inputs = one.action_space, one.observation_space.shape

    def body():
        return Net(state_shape=inputs, hidden_sizes=(64, 64), activation=torch.nn.Tanh)

    policy = ProbabilisticActorPolicy(
        actor=ContinuousActorProbabilistic(preprocess_net=body(), action_shape=space.shape, unbounded=True),
        dist_fn=lambda mean_and_deviation: Independent(Normal(*mean_and_deviation), 1),
        action_space=space,
        action_scaling=False,
        action_bound_method=None,  # the wrapper bounds logits itself
        deterministic_eval=True,
    )
    algorithm = PPO(
        policy=policy,
        critic=ContinuousCritic(preprocess_net=body()),
        optim=AdamOptimizerFactory(lr=1.2e-3),
        gamma=0.95,
        gae_lambda=0.9,
        return_scaling=True,
        ent_coef=0.0,
        max_grad_norm=0.5,
    )
    algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=Collector(policy, envs, VectorReplayBuffer(ENVS * ROLLOUT, ENVS)),
            max_epochs=1,
            epoch_num_steps=steps,
            collection_step_num_env_steps=ENVS * ROLLOUT,
            update_step_num_repetitions=7,
            batch_size=256,
            show_progress=False,
        )
    )
    shares = simplex(4)  # as `SimplexAction` has it

    def learned(observation):
        logits = policy.compute_action(observation.reshape(-1))
        return shares(observation[None], logits[None])[0]

    print("PPO", evaluate(learned, "serverless", episodes)["objective"])
    print("Algorithm 1", evaluate(adaptive, "serverless", episodes)["objective"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps (default: 100000)")
    parser.add_argument("--episodes", type=int, default=20, help="held-out episodes (default: 20)")
    main(**vars(parser.parse_args()))
