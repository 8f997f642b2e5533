"""PPO of RLlib by the registered id, with two workers; Ray needs an environment of its own."""

import argparse

import gymnasium as gym
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.tune import register_env

from gpualloc_env.wrappers import SimplexAction


def make(options):
    """An environment of a worker, which imports the package that registers the id."""
    return SimplexAction(gym.make("gpualloc_env:GPUAlloc-v0", **options))


def main(iterations: int, workers: int) -> None:
    """Train for so many iterations with so many workers."""
    register_env("gpualloc", make)
    config = (
        PPOConfig()
        .environment("gpualloc", env_config={"scenario": "serverless"})
        .env_runners(
            num_env_runners=workers, env_to_module_connector=lambda env, spaces, device: FlattenObservations()
        )
        .training(
            gamma=0.95, lambda_=0.9, train_batch_size_per_learner=2048, minibatch_size=256, num_epochs=7
        )
    )
    algorithm = config.build_algo()
    for _ in range(iterations):
        result = algorithm.train()["env_runners"]
        print("mean return of an episode", result.get("episode_return_mean"))
    algorithm.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=50, help="(default: 50)")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes that step environments (default: 2)"
    )
    main(**vars(parser.parse_args()))
