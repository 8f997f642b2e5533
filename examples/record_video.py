"""A clip of a policy at work on one pool of GPUs or on a cluster, made by Gymnasium's `RecordVideo`."""

import argparse

import gymnasium as gym
from gymnasium.wrappers import RecordVideo

from baselines import fresh
from baselines.cluster import CLUSTER_POLICIES
from gpualloc_env import CLUSTERS, policy


def main(scenario: str, policy_name: str | None, steps: int, folder: str) -> None:
    """Play so many steps of episode 0 and write `folder/scenario-episode-0.mp4`."""
    cluster = scenario in CLUSTERS
    env = gym.make(f"GPU{'Cluster' if cluster else 'Alloc'}-v0", scenario=scenario, render_mode="rgb_array")
    view = env.unwrapped.view  # live
    if cluster:
        act = fresh(CLUSTER_POLICIES[policy_name or "popularity"])
    else:
        act = policy(policy_name or "receding-horizon", scenario)
    env = RecordVideo(env, folder, episode_trigger=lambda _: True, name_prefix=scenario)
    env.reset(seed=0)
    for _ in range(min(steps, env.spec.max_episode_steps)):
        env.step(act(view))
    env.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="serverless")
    parser.add_argument(
        "--policy", dest="policy_name", help="default: receding-horizon, or popularity in a cluster"
    )
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--folder", default="videos")
    main(**vars(parser.parse_args()))
