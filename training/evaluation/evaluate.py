"""The one rollout loop: a policy on held-out episodes, all of them side by side."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from baselines import Policy, fresh
from gpualloc_env.batch import Batch
from gpualloc_env.metrics import episode_metrics
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import Array

Metrics = dict[str, float]
Kind = Literal["online", "learned", "privileged"]
"""Whether a policy is a baseline, was trained, or knows the future."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that one policy did in E episodes of a scenario."""

    policy: str
    batch: Batch
    """The E finished episodes; `batch.history`, (E, T, OUTCOME_COLUMNS, N), holds every step."""
    metrics: list[Metrics]
    """Metrics of each episode over all agents."""
    per_agent: list[dict[str, Metrics]]
    """Metrics of each episode by agent."""
    kind: Kind = "online"

    @property
    def objective(self) -> Array:
        """J of each episode, (E,)."""
        return np.array([metrics["objective"] for metrics in self.metrics])


def rollout(policy: Policy, scenario: Scenario, episodes: int, seed: int, *, record: bool) -> Batch:
    """Play the episodes with seeds `seed`, `seed` + 1, …, `seed` + `episodes` − 1, each to its end.

    A policy with memory begins with none: nothing passes from one rollout to the next.

    Args:
        policy: who decides.
        scenario: what to simulate.
        episodes: how many environments are advanced side by side.
        seed: of the first.
        record: keep every step, as metrics need it; without it only the objective can be read.
    """
    policy = fresh(policy)
    batch = Batch(scenario, episodes, record=record)
    batch.seed(seed)
    batch.reset()
    for _ in range(scenario.steps):
        batch.step(policy(batch.view))
    return batch


def evaluate(
    name: str, policy: Policy, scenario: Scenario, episodes: int, seed: int, *, kind: Kind = "online"
) -> Evaluation:
    """Run a policy on the episodes with seeds `seed`, `seed` + 1, …, `seed` + `episodes` − 1.

    Every policy that is given the same scenario and seed meets exactly the same arrivals.
    """
    batch = rollout(policy, scenario, episodes, seed, record=True)
    metrics: list[Metrics] = []
    per_agent: list[dict[str, Metrics]] = []
    for b in range(episodes):
        overall = dict(episode_metrics(batch, b))
        per_agent.append(overall.pop("per_agent"))  # pyright: ignore
        metrics.append(overall)  # pyright: ignore
    return Evaluation(name, batch, metrics, per_agent, kind)
