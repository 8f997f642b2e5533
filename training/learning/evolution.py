"""Search by evolution in the last layer of an actor, before PPO: for objectives that drown in noise.

Covariance matrix adaptation (CMA-ES: Hansen and Ostermeier, Evolutionary Computation 9 (2001)); of many
weights its diagonal alone (sep-CMA-ES: Ros and Hansen, PPSN 2008), which is known in far fewer generations.
All candidates of a generation play the same fresh episodes, so that they differ by their weights alone; the
gradients of PPO see the noise of arrivals, which is many times what a correction of a good controller gains.
That noise keeps the mean of the candidates on the move, so the result is its average at the end.
"""

import pickle
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from torch import Tensor, nn

from baselines import Policy, fresh
from gpualloc_env.allocator.cluster import instance_rows
from gpualloc_env.allocator.receding_horizon import CORRECTIONS
from gpualloc_env.metrics import objectives
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View, observe
from gpualloc_env.simulation.state import AnyArray, Array
from training.evaluation.evaluate import rollout
from training.evaluation.held_out import count_episodes
from training.files.atomic import write_atomically
from training.learning.allocators.action_transform import Transform, told
from training.learning.allocators.trained_network import LearnedPolicy, SideBySide, policy_of

POPULATION, EPISODES, STD = 16, 60, 0.1
"""Candidates of a generation; episodes that each plays; standard deviation of their weights at first."""
_WATCHED = 4  # episodes from which the scale of what the layer reads is known
_MOST_CORRELATED = 40  # weights whose covariances are adapted too, not just their variances
_AVERAGED = 0.25  # of the generations, the last ones
_LEAST_STD = 1e-2  # of what counts as varying
_LEAST_SCALE = 1e-3  # of J


class LastLayer:
    """The linear layers with which an actor ends, as a vector of changes from where they are now.

    The weights are in units of what the layers read, less its mean and over its standard deviation.
    """

    def __init__(self, model: PPO, mean: Tensor, std: Tensor, biases: bool = False) -> None:
        """Take the layers of a model's actor.

        Args:
            model: whose policy is an `AllocatorPolicy`.
            mean: of what the layers read, (H,).
            std: standard deviation of the same, (H,).
            biases: the vector has their biases alone.
        """
        layers: Any = model.policy.action_net.modules()
        self._layers = [each for each in layers if isinstance(each, nn.Linear)]
        self._first = [(each.weight.detach().clone(), each.bias.detach().clone()) for each in self._layers]
        self._mean, self._std, self._biases = mean, std, biases

    @property
    def size(self) -> int:
        """How many weights and biases there are."""
        return sum(bias.numel() + (0 if self._biases else weight.numel()) for weight, bias in self._first)

    def put(self, changes: Array) -> None:
        """Set the layers to what they were plus changes, (`size`,)."""
        rest = torch.as_tensor(changes, dtype=torch.float32)
        with torch.no_grad():
            for layer, (weight, bias) in zip(self._layers, self._first, strict=True):
                count = 0 if self._biases else weight.numel()
                own, shift, rest = rest.tensor_split((count, count + bias.numel()))
                moved = own.view_as(weight) / self._std if count else torch.zeros_like(weight)
                layer.weight.copy_(weight + moved)
                layer.bias.copy_(bias + shift - moved @ self._mean)


def begin_reluctant(model: PPO, reluctance: float) -> None:
    """Move where a search begins: a change of share is thought to cost exp(`reluctance`) times as much."""
    with torch.no_grad():
        model.policy.action_net.own.bias[CORRECTIONS.index("reluctance")] += reluctance  # pyright: ignore


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
    biases: bool = False,
    progress: Callable[[int, float], None] | None = None,
    kept: Path | None = None,
) -> None:
    """Move the last layer of a model's actor to where the mean J of whole episodes is lowest.

    Args:
        model: whose policy is an `AllocatorPolicy`.
        transform: from its actions to shares.
        scenarios: what is played; of several, J is the mean over them, each relative to its own at first.
        first_seed: of the first episode, which all scenarios share; the others follow.
        generations: of candidates; the layer ends at the average of their means over the last quarter.
        population: candidates of a generation.
        episodes: of each scenario that every candidate of a generation plays.
        std: of the weights in the first generation.
        biases: only the biases move: what is put out, not what of it depends on what is read.
        progress: called after each generation with how many came before it, and J of the mean of its
            candidates less J of the weights at first, on its episodes.
        kept: file in which the search is kept after each generation, and from which it goes on. It is
            unpickled: give only one that you trust.

    Raises:
        ValueError: another version of this package wrote the file.
    """
    layer = LastLayer(model, *_units(model, transform, scenarios, first_seed), biases)
    start, gains, means = np.zeros(layer.size), list[float](), list[Array]()
    search = _search(layer.size, std, population)
    first_seed += _WATCHED
    if kept is not None and kept.exists():
        search, gains, means = _kept_search(kept)
    objectives_of = _objectives_of(layer, model, transform, scenarios, episodes, first_seed)
    say = progress or (lambda *_: None)
    for known in enumerate(gains):
        say(*known)
    for generation in range(len(gains), generations):
        seed = first_seed + generation * episodes
        search.reseed_rng(seed % 2**32)  # what is kept has no generator
        asked = [search.ask() for _ in range(population)]
        # Episodes that have not led to the mean yet: an honest measure of it.
        now, then, *played = objectives_of([search.mean, start, *asked], seed)
        gains.append(now - then)
        say(generation, gains[-1])
        search.tell(list(zip(asked, played, strict=True)))
        means.append(search.mean.copy())
        content = pickle.dumps((search, gains, means))
        if kept is not None:
            write_atomically(kept, content)
        # A search that is read again is rounded; this one goes on as it would.
        search, gains, means = pickle.loads(content)
    layer.put(np.mean(means[-ceil(_AVERAGED * generations) :], axis=0))


def _search(size: int, std: float, population: int) -> Any:
    """What asks for candidates, from no changes of so many weights on."""
    from cmaes import CMA, SepCMA  # takes half a second, which only those who evolve should wait

    method = CMA if size <= _MOST_CORRELATED else SepCMA
    return method(mean=np.zeros(size), sigma=std, population_size=population)


def _kept_search(kept: Path) -> tuple[Any, list[float], list[Array]]:
    """A search, its gains and the means of its candidates, as they were kept."""
    contents = pickle.loads(kept.read_bytes())
    if len(contents) != 3:
        raise ValueError(
            f"{kept} was written by another version of this package; go on with that version, or remove the "
            "file to begin anew"
        )
    return contents


def _objectives_of(
    layer: LastLayer,
    model: PPO,
    transform: Transform,
    scenarios: Sequence[Scenario],
    episodes: int,
    first_seed: int,
) -> Callable[[Sequence[Array], int], list[float]]:
    """What is minimised: the mean J of candidates, by their changes of the layer and the first seed.

    Of several scenarios each J is relative to that of no changes on the episodes from `first_seed` on.
    Otherwise the scenarios with the largest J would decide alone.
    """
    own = [(told(transform, scenario), scenario) for scenario in scenarios]

    def policy(candidate: Array, transform: Transform) -> Policy:
        layer.put(candidate)
        return policy_of(model, transform)

    def each(candidates: Sequence[Array], seed: int) -> Array:
        """J, (scenarios, candidates)."""
        played = [([policy(one, acts) for one in candidates], scenario) for acts, scenario in own]
        return np.array([_mean_objectives(*each, episodes, seed) for each in played])

    several = len(scenarios) > 1
    scale = np.maximum(abs(each([np.zeros(layer.size)], first_seed)), _LEAST_SCALE) if several else 1.0
    return lambda candidates, seed: (each(candidates, seed) / scale).mean(axis=0).tolist()


def _mean_objectives(policies: Sequence[Policy], scenario: Scenario, episodes: int, first_seed: int) -> Array:
    """Mean J of policies on the same episodes, (policies,): those of networks play them side by side."""
    count = count_episodes(episodes, scenario)
    networks = [each.decider for each in policies if isinstance(each, LearnedPolicy)]
    together = [SideBySide(networks)] if networks else policies
    seeds = [first_seed + k for k in range(count)] * (len(policies) // len(together))
    played = [objectives(rollout(each, scenario, len(seeds), seeds, record=False)) for each in together]
    return np.concatenate(played).reshape(len(policies), count).mean(axis=1)


def _units(
    model: PPO, transform: Transform, scenarios: Sequence[Scenario], first_seed: int
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of what the last layer reads, (H,), where the model decides."""
    units = torch.cat([_read(model, transform, scenario, first_seed) for scenario in scenarios])
    std = units.std(dim=0)
    # What does not vary here must not matter where it does.
    return units.mean(dim=0), std.where(std > _LEAST_STD, torch.inf)


def _read(model: PPO, transform: Transform, scenario: Scenario, first_seed: int) -> Tensor:
    """What the last layer reads in some episodes of a scenario, (decisions, H)."""
    policy, seen = fresh(policy_of(model, told(transform, scenario))), list[AnyArray]()

    def decide(view: View) -> Array:
        seen.append(observe(view) if isinstance(view, View) else instance_rows(view))
        return policy(view)

    rollout(decide, scenario, _WATCHED, first_seed, record=False)
    actor: Any = model.policy.mlp_extractor.actor
    with torch.no_grad():
        return actor(torch.as_tensor(np.concatenate(seen), dtype=torch.float32)).flatten(0, -2)
