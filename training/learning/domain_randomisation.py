"""Variants of a scenario, trained on side by side, so that an allocator does not depend on its details."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import AnyArray
from training.learning.joint_vec_env import JointVecEnv
from training.learning.paired_vec_env import PairedVecEnv

SEEDS_PER_DOMAIN = 2**20
"""Between the first seeds of two domains: more than anyone has environments in one."""

_LOAD = (0.5, 1.2)  # least and greatest factor
_RATE = (0.5, 2.0)
_FRICTION = (0.5, 2.0)
_DT = (0.25, 0.5, 1.0, 2.0)


def variants(scenario: Scenario, count: int, seed: int) -> list[Scenario]:
    """The scenario itself and variants of it with another mix, load, platform and step.

    Every rate is multiplied by a factor from ½ to 2 (a drawn mix has a concentration from 1 to 4), the
    load by one from 0.5 to 1.2, the times of reallocation, cold start and keep-alive by factors
    from ½ to 2, and dt by ¼, ½, 1 or 2. A log keeps its mix.
    """
    generator = np.random.default_rng(seed)

    def factor(bounds: tuple[float, float]) -> float:
        return float(np.exp(generator.uniform(*np.log(bounds))))

    made = [scenario]
    while len(made) < count:
        platform, traffic, trace = scenario.platform, scenario.traffic, scenario.trace
        load = factor(_LOAD)
        frictions = ("reallocation_s", "container_start_s", "keep_alive_s")
        changes: dict[str, Any] = {
            "platform": platform.model_copy(
                update={name: getattr(platform, name) * factor(_FRICTION) for name in frictions}
            ),
            "dt": float(np.clip(scenario.dt * generator.choice(_DT), 0.01, 10.0)),
        }
        if traffic is not None:
            mix: dict[str, Any] = {"load": traffic.load * load if traffic.load is not None else None}
            if traffic.rates_rps is not None:
                rest = load if traffic.load is None else 1.0
                mix["rates_rps"] = tuple(rate * rest * factor(_RATE) for rate in traffic.rates_rps)
            else:
                mix["mix_concentration"] = int(generator.integers(1, 5))
            changes["traffic"] = traffic.model_copy(update=mix)
        if trace is not None:
            changes["trace"] = trace.model_copy(update={"load": min(10.0, trace.load * load)})
        made.append(scenario.model_copy(update=changes))
    return made


class DomainVecEnv(JointVecEnv):
    """Environments of several domains as one: each domain has as many, one after another."""

    whole = "domain"

    def __init__(self, domains: Sequence[PairedVecEnv]) -> None:
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
            domain.restore(part)
