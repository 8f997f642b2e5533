"""SAC of stable-baselines3, or TQC of sb3-contrib, against Algorithm 1 on 20 held-out episodes."""

import argparse
from importlib import import_module

from sb3_ppo import judge
from stable_baselines3.common.vec_env import VecNormalize

from gpualloc_env import sb3_vec_env

ALGORITHMS = {"SAC": "stable_baselines3", "TQC": "sb3_contrib"}


def main(algorithm: str, steps: int, episodes: int, seed: int) -> None:
    """Train for so many steps, and judge on so many episodes."""
    envs = VecNormalize(sb3_vec_env(32, "serverless", seed=seed), norm_obs=False, gamma=0.95)
    model = getattr(import_module(ALGORITHMS[algorithm]), algorithm)(
        "MlpPolicy",
        envs,
        learning_rate=1e-3,
        learning_starts=5_000,
        train_freq=1,
        gradient_steps=-1,  # one for each environment step
        gamma=0.95,
        policy_kwargs={"net_arch": [64, 64]},
        seed=seed,
        device="cpu",
    )
    model.learn(steps)
    judge(algorithm, model, episodes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="SAC", help="(default: SAC)")
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps (default: 100000)")
    parser.add_argument("--episodes", type=int, default=20, help="held-out episodes (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default: 0)")
    main(**vars(parser.parse_args()))
