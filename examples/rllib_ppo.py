"""PPO of RLlib by the registered id, or of all agents by themselves; Ray needs an environment of its own."""

import argparse

import gymnasium as gym
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.env_to_module import FlattenObservations
from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv
from ray.tune import register_env

from gpualloc_env.wrappers import SimplexAction


def single(options):
    """One learner for the whole platform; a worker imports the package that registers the id."""
    return SimplexAction(gym.make("gpualloc_env:GPUAlloc-v0", **options))


def many(options):
    """A learner for every agent."""
    from gpualloc_env import parallel_env

    return ParallelPettingZooEnv(parallel_env(**options))


def main(iterations: int, workers: int, multi_agent: bool) -> None:
    """Train for so many iterations with so many workers."""
    register_env("gpualloc", many if multi_agent else single)
    config = (
        PPOConfig()
        .environment("gpualloc", env_config={"scenario": "serverless"})
        .env_runners(num_env_runners=workers)
        .training(
            gamma=0.95, lambda_=0.9, train_batch_size_per_learner=2048, minibatch_size=256, num_epochs=7
        )
    )
    if multi_agent:
        # One policy for all of them: what an agent is stands in its observation.
        config.multi_agent(policies={"shared"}, policy_mapping_fn=lambda agent, episode, **_: "shared")
    else:
        config.env_runners(env_to_module_connector=lambda env, spaces, device: FlattenObservations())
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
    parser.add_argument("--multi-agent", action="store_true", help="train through PettingZoo's interface")
    main(**vars(parser.parse_args()))
