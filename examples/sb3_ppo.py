"""PPO of stable-baselines3 on the native batch, against Algorithm 1 on 20 held-out episodes."""

import argparse

from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from baselines import adaptive
from gpualloc_env import evaluate, sb3_vec_env
from gpualloc_env.action_transform import simplex


def main(steps: int, episodes: int) -> None:
    """Train for so many steps, and judge on so many episodes."""
    envs = VecNormalize(sb3_vec_env(32, "serverless", seed=0), norm_obs=False, gamma=0.95)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=32,
        batch_size=256,
        n_epochs=7,
        learning_rate=1.2e-3,
        gamma=0.95,
        gae_lambda=0.9,
        seed=0,
        device="cpu",
    )
    model.learn(steps)
    judge("PPO", model, episodes)


def judge(name: str, model: BaseAlgorithm, episodes: int) -> None:
    """Print J of a model and of Algorithm 1 on held-out episodes."""
    shares = simplex(4)  # as `SimplexAction` has it

    def learned(observation):
        logits, _ = model.predict(observation, deterministic=True)
        return shares(observation[None], logits[None])[0]

    print(name, evaluate(learned, "serverless", episodes)["objective"])
    print("Algorithm 1", evaluate(adaptive, "serverless", episodes)["objective"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps (default: 100000)")
    parser.add_argument("--episodes", type=int, default=20, help="held-out episodes (default: 20)")
    main(**vars(parser.parse_args()))
