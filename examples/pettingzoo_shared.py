"""One network for all agents: PPO with shared parameters on PettingZoo's parallel interface, by SuperSuit."""

import argparse

import supersuit
from stable_baselines3 import PPO

from gpualloc_env import parallel_env


def main(steps: int) -> None:
    """Train for so many decisions of single agents."""
    env = supersuit.pettingzoo_env_to_vec_env_v1(parallel_env("serverless", reward="own"))
    envs = supersuit.concat_vec_envs_v1(env, 4, num_cpus=1, base_class="stable_baselines3")
    model = PPO("MlpPolicy", envs, n_steps=128, batch_size=256, gamma=0.95, device="cpu")
    model.learn(steps)

    env = parallel_env("serverless")
    observations, _ = env.reset(seed=10000)
    while env.agents:
        actions = {agent: model.predict(row, deterministic=True)[0] for agent, row in observations.items()}
        observations, *_ = env.step(actions)
    print("J", env.episode_metrics()["objective"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200_000, help="decisions (default: 200000)")
    main(**vars(parser.parse_args()))
