"""What does a weight buy? PPO with two weights of cost on the vector of terms of `GPUAlloc-MO-v0`."""

import argparse

import mo_gymnasium
import numpy as np
from gymnasium.wrappers import NormalizeReward
from stable_baselines3 import PPO

from gpualloc_env.simulation.state import TERMS
from gpualloc_env.wrappers import SimplexAction


def main(steps: int) -> None:
    """Train for so many steps for each weight, and print the mean terms of an episode."""
    for cost in (0.2, 5.0):
        env = SimplexAction(mo_gymnasium.make("GPUAlloc-MO-v0"))
        weights = env.unwrapped.weights.copy()
        weights[TERMS.index("cost")] = cost
        scalar = mo_gymnasium.wrappers.LinearReward(env, weight=weights)
        # Rewards of a network that knows nothing are some thousand times those of one that has learned.
        scaled = NormalizeReward(scalar, gamma=0.95)
        settings = {"n_steps": min(1024, steps), "batch_size": 256, "learning_rate": 1.2e-3, "gamma": 0.95}
        model = PPO("MlpPolicy", scaled, **settings, gae_lambda=0.9, seed=0, device="cpu")
        model.learn(steps)
        observation, _ = env.reset(seed=10000)
        rewards, truncated = [], False
        while not truncated:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, _, truncated, _ = env.step(action)
            rewards.append(reward)
        print(
            f"weight of cost {cost}:",
            dict(zip(TERMS, np.mean(rewards, axis=0).round(3).tolist(), strict=True)),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps (default: 100000)")
    main(**vars(parser.parse_args()))
