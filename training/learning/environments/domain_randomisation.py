"""Variants of a scenario, trained on side by side, so that an allocator does not depend on its details."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnv, VecEnvStepReturn

from gpualloc_env.sb3 import JointRows
from gpualloc_env.scenario.loading import validated
from gpualloc_env.scenario.model import MOST_LOAD, MOST_RPS
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray
from training.evaluation.seeds import SEEDS_PER_DOMAIN
from training.learning.environments.cluster_vec_env import ClusterVecEnv
from training.learning.environments.paired_vec_env import PairedVecEnv

_LOAD = (0.5, 1.2)  # least and greatest factor
_RATE = (0.5, 2.0)
_FRICTION = (0.5, 2.0)
_DT = (0.25, 0.5, 1.0, 2.0)
_FRICTIONS = ("reallocation_s", "container_start_s", "keep_alive_s")


def variants(scenario: Scenario, count: int, seed: int) -> list[Scenario]:
    """The scenario itself and variants of it with another mix, load, platform and step.

    Every rate is multiplied by a factor from ½ to 2 (a drawn mix has a concentration from 1 to 4), the
    load by one from 0.5 to 1.2, the times of reallocation, cold start and keep-alive by factors
    from ½ to 2, and dt by ¼, ½, 1 or 2, each as far as a scenario may have it; an episode takes the
    same time in all. A log keeps its mix.

    Raises:
        ScenarioError: a variant would have more steps than a scenario may have.
    """
    generator = np.random.default_rng(seed)
    return [scenario, *(_variant(scenario, generator) for _ in range(count - 1))]


def _variant(scenario: Scenario, generator: np.random.Generator) -> Scenario:
    def factor(bounds: tuple[float, float]) -> float:
        return float(np.exp(generator.uniform(*np.log(bounds))))

    load = factor(_LOAD)
    data: dict[str, Any] = scenario.model_dump()
    platform, traffic, trace = data["platform"], data["traffic"], data["trace"]
    for name in _FRICTIONS:
        platform[name] = platform[name] * factor(_FRICTION)
    data["dt"] = float(np.clip(scenario.dt * generator.choice(_DT), 0.01, 10.0))
    # A surge late in the episode must fall into every variant of it.
    data["steps"] = max(1, ceil(scenario.steps * scenario.dt / data["dt"] - 1e-9))
    if traffic is not None:
        if traffic["rates_rps"] is not None:
            rest = load if traffic["load"] is None else 1.0
            traffic["rates_rps"] = tuple(
                min(MOST_RPS, rate * rest * factor(_RATE)) for rate in traffic["rates_rps"]
            )
        else:
            traffic["mix_concentration"] = int(generator.integers(1, 5))
    for source in (traffic, trace, data["sessions"]):
        if source is not None and source["load"] is not None:
            source["load"] = min(MOST_LOAD, source["load"] * load)
    return validated(data, f"a variant of scenario {scenario.name!r}").with_key_of(scenario)


class DomainVecEnv(JointRows, VecEnv):
    """Environments of several domains as one: each domain has as many, one after another."""

    whole = "domain"

    def __init__(self, domains: Sequence[PairedVecEnv | ClusterVecEnv]) -> None:
        """Join them; their agents and their actions are alike."""
        self._domains = list(domains)
        self._ends = np.cumsum([domain.num_envs for domain in domains])
        self.render_mode = None
        first = domains[0]
        super().__init__(int(self._ends[-1]), first.observation_space, first.action_space)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Seed the domains, each far from the others."""
        return [
            each
            for k, domain in enumerate(self._domains)
            for each in domain.seed(None if seed is None else seed + k * SEEDS_PER_DOMAIN)
        ]

    def reset(self) -> AnyArray:
        """Start the next episode in all environments."""
        return np.concatenate([domain.reset() for domain in self._domains])

    def step_async(self, actions: AnyArray) -> None:
        """Hand the actions, (B, A), on to the domains."""
        for domain, part in zip(self._domains, np.split(actions, self._ends[:-1]), strict=True):
            domain.step_async(part)

    def step_wait(self) -> VecEnvStepReturn:
        """Advance by one step, and start the next episodes where one has ended."""
        results: list[Any] = [domain.step_wait() for domain in self._domains]
        observations, rewards, dones, infos = zip(*results, strict=True)
        joined = [np.concatenate(each) for each in (observations, rewards, dones)]
        return joined[0], joined[1], joined[2], [info for part in infos for info in part]

    def snapshot(self) -> list[dict[str, Any]]:
        """What the environments' future depends on, for `restore`: not a copy, to be pickled at once."""
        return [domain.snapshot() for domain in self._domains]

    def restore(self, snapshot: list[dict[str, Any]]) -> None:
        """Go on from a snapshot.

        Raises:
            ValueError: it is of another scenario.
        """
        for domain, part in zip(self._domains, snapshot, strict=True):
            asked = domain.scenario
            domain.restore(part)
            if domain.scenario != asked:
                raise ValueError(
                    f"scenario {asked.name!r} is not the one that the run was started with: its description "
                    "has changed; undo that, or give another --out"
                )
