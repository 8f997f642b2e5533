"""Search by evolution in the last layer of an actor, before PPO: for objectives that drown in noise.

Covariance matrix adaptation (CMA-ES: Hansen and Ostermeier, Evolutionary Computation 9 (2001)). All
candidates of a generation play the same fresh episodes, so that they differ by their weights alone; the
gradients of PPO see the noise of arrivals, which is many times what a correction of a good controller gains.
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from cmaes import CMA
from stable_baselines3 import PPO
from torch import Tensor, nn

from baselines import fresh
from gpualloc_env.allocator.cluster import instance_rows
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View, observe
from gpualloc_env.simulation.state import AnyArray, Array
from training.evaluation.evaluate import rollout
from training.files.atomic import write_atomically
from training.learning.action_transform import Transform
from training.learning.selection import mean_objective
from training.learning.trained_network import policy_of

POPULATION, EPISODES, STD = 16, 60, 0.1
"""Candidates of a generation; episodes that each plays; standard deviation of their weights at first."""
_WATCHED = 4  # episodes from which the scale of the units is known


class Head(NamedTuple):
    """A linear layer of the last ones, as the search begins."""

    layer: nn.Linear
    weight: Tensor  # (A, H)
    bias: Tensor  # (A,)


def evolve(
    model: PPO,
    transform: Transform,
    scenarios: Sequence[Scenario],
    first_seed: int,
    *,
    generations: int,
    population: int = POPULATION,
    episodes: int = EPISODES,
    std: float = STD,
    progress: Callable[[int, float], None] | None = None,
    kept: Path | None = None,
) -> None:
    """Move the last layer of a model's actor to where the mean J of whole episodes is lowest.

    The weights are searched in units of what the layer reads, less its mean and over its standard deviation.

    Args:
        model: whose policy is an `AllocatorPolicy`.
        transform: from its actions to shares.
        scenarios: what is played; J is the mean over them.
        first_seed: of the first episode, which all scenarios share; the others follow.
        generations: of candidates.
        population: candidates of a generation.
        episodes: of each scenario that every candidate of a generation plays.
        std: of the weights in the first generation.
        progress: called before each generation with how many are done, and the difference in J between the
            mean of the candidates to come and the weights at first, on the episodes to come.
        kept: file in which the search is kept after each generation, and from which it goes on. It is
            unpickled: give only one that you trust.
    """
    heads = [
        Head(each, each.weight.detach().clone(), each.bias.detach().clone())
        for each in model.policy.action_net.modules()
        if isinstance(each, nn.Linear)
    ]
    mean, scale = _units(model, transform, scenarios[0], first_seed)
    start = np.zeros(sum(each.weight.numel() + each.bias.numel() for each in heads))
    search = CMA(mean=start, sigma=std, population_size=population)
    gains: list[float] = []
    first_seed += _WATCHED
    if kept is not None and kept.exists():
        search, gains = pickle.loads(kept.read_bytes())

    def put(candidate: Array) -> None:
        rest = torch.as_tensor(candidate, dtype=torch.float32)
        with torch.no_grad():
            for head in heads:
                own, shift, rest = rest.tensor_split(
                    (head.weight.numel(), head.weight.numel() + head.bias.numel())
                )
                moved = own.view_as(head.weight) / scale
                head.layer.weight.copy_(head.weight + moved)
                head.layer.bias.copy_(head.bias + shift - moved @ mean)

    def objective(candidate: Array, seed: int) -> float:
        put(candidate)
        return mean_objective(policy_of(model, transform), scenarios, episodes, seed)

    say = progress or (lambda *_: None)
    for known in enumerate(gains):
        say(*known)
    for generation in range(len(gains), generations):
        seed = first_seed + generation * episodes
        # Episodes that have not led to the mean yet: an honest measure of it.
        gains.append(objective(search.mean, seed) - objective(start, seed))
        say(generation, gains[-1])
        search.reseed_rng(seed % 2**32)  # what is kept has no generator
        search.tell([(each, objective(each, seed)) for each in (search.ask() for _ in range(population))])
        content = pickle.dumps((search, gains))
        if kept is not None:
            write_atomically(kept, content)
        # A search that is read again is rounded; this one goes on as it would.
        search, gains = pickle.loads(content)
    put(search.mean)


def _units(model: PPO, transform: Transform, scenario: Scenario, first_seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what the last layer reads, (H,), where the model decides."""
    policy, seen = fresh(policy_of(model, transform)), list[AnyArray]()

    def decide(view: View) -> Array:
        seen.append(observe(view) if isinstance(view, View) else instance_rows(view))
        return policy(view)

    rollout(decide, scenario, _WATCHED, first_seed, record=False)
    actor: Any = model.policy.mlp_extractor.actor
    with torch.no_grad():
        units = actor(torch.as_tensor(np.concatenate(seen), dtype=torch.float32)).flatten(0, -2)
    return units.mean(dim=0), units.std(dim=0).clamp(min=1e-2)
