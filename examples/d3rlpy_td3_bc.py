"""TD3 with behaviour cloning, by d3rlpy, from a Minari data set of receding-horizon control.

Record it first: python -m training.record --policy receding-horizon --scenario serverless --episodes 100
"""

import argparse

import d3rlpy
import minari
import numpy as np

from gpualloc_env import evaluate


def main(dataset: str, updates: int, episodes: int) -> None:
    """Learn with so many updates, and judge on so many held-out episodes."""
    d3rlpy.seed(0)
    recorded = list(minari.load_dataset(dataset).iterate_episodes())
    observations = np.concatenate([each.observations[:-1] for each in recorded])
    data = d3rlpy.dataset.MDPDataset(
        observations=observations.reshape(len(observations), -1),
        actions=np.concatenate([each.actions for each in recorded]),
        rewards=np.concatenate([each.rewards for each in recorded]),
        terminals=np.concatenate([each.terminations for each in recorded]),
        timeouts=np.concatenate([each.truncations for each in recorded]),
    )
    learner = d3rlpy.algos.TD3PlusBCConfig(
        gamma=0.95,
        action_scaler=d3rlpy.preprocessing.MinMaxActionScaler(minimum=0.0, maximum=1.0),
        reward_scaler=d3rlpy.preprocessing.StandardRewardScaler(),
    ).create(device="cpu")
    learner.fit(
        data,
        n_steps=updates,
        n_steps_per_epoch=updates,
        show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    )

    def learned(observation):
        return learner.predict(observation.reshape(1, -1))[0]

    print("J", evaluate(learned, "serverless", episodes)["objective"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="gpualloc/serverless/receding-horizon-v0")
    parser.add_argument("--updates", type=int, default=10_000, help="of 256 steps each (default: 10000)")
    parser.add_argument("--episodes", type=int, default=20, help="held-out episodes (default: 20)")
    main(**vars(parser.parse_args()))
