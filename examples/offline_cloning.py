"""Behaviour cloning from a Minari data set of receding-horizon control.

Record it first: python -m training.record --policy receding-horizon --scenario serverless --episodes 100
"""

import argparse

import minari
import numpy as np
import torch
from torch import nn

from gpualloc_env import evaluate


def main(dataset: str, updates: int, episodes: int) -> None:
    """Clone the shares with so many updates, and judge on so many held-out episodes."""
    torch.manual_seed(0)
    recorded = list(minari.load_dataset(dataset).iterate_episodes())
    observations = torch.from_numpy(np.concatenate([each.observations[:-1] for each in recorded])).flatten(1)
    shares = torch.from_numpy(np.concatenate([each.actions for each in recorded]))
    shares = torch.cat([shares, (1 - shares.sum(1, keepdim=True)).clamp(min=0)], dim=1)  # the idle part
    network = nn.Sequential(
        nn.Linear(observations.shape[1], 128),
        nn.Tanh(),
        nn.Linear(128, 128),
        nn.Tanh(),
        nn.Linear(128, shares.shape[1]),
    )
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(updates):
        chosen = torch.randint(len(observations), (256,))
        loss = nn.functional.cross_entropy(network(observations[chosen]), shares[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    @torch.no_grad()
    def clone(observation):
        return network(torch.from_numpy(observation).flatten()).softmax(0)[:-1].numpy()

    print("J", evaluate(clone, "serverless", episodes)["objective"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="gpualloc/serverless/receding-horizon-v0")
    parser.add_argument("--updates", type=int, default=3000, help="of 256 steps each (default: 3000)")
    parser.add_argument("--episodes", type=int, default=20, help="held-out episodes (default: 20)")
    main(**vars(parser.parse_args()))
