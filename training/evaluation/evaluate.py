"""The one rollout loop: a policy on held-out episodes, all of them side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
    """Everything that one policy did in E episodes of a scenario.

    A policy of S training seeds has the means of their metrics, and the recorded steps of the first.
    """

    policy: str
    batch: Batch
    """The E finished episodes; `batch.history`, (E, T, N) of OUTCOME, holds every step."""
    metrics: list[Metrics]
    """Metrics of each episode over all agents."""
    per_agent: list[dict[str, Metrics]]
    """Metrics of each episode by agent."""
    by_seed: Array
    """J of each training seed and episode, (S, E); S is 1 for a policy that was not trained."""
    kind: Kind = "online"

    @cached_property
    def objective(self) -> Array:
        """J of each episode, (E,), the mean over training seeds."""
        return self.by_seed.mean(axis=0)

    @property
    def label(self) -> str:
        """Its name in tables and figures."""
        if self.kind == "privileged":
            return f"{self.policy} (knows the future)"
        return self.policy if len(self.by_seed) == 1 else f"{self.policy} ({len(self.by_seed)} seeds)"


def mean_metrics(episodes: Sequence[Metrics]) -> Metrics:
    """Mean of every metric over the episodes in which it is defined; NaN where it never is."""
    means: Metrics = {}
    for name in episodes[0]:
        values = np.array([metrics[name] for metrics in episodes])
        defined = values[~np.isnan(values)]
        means[name] = float(defined.mean()) if defined.size else float("nan")
    return means


def joined(name: str, played: Iterable[Evaluation]) -> Evaluation:
    """One evaluation of the training seeds of a policy, each on the same episodes."""
    runs: list[Evaluation] = []
    for run in played:
        # The recorded steps of the first are kept; those of all would not fit into memory.
        runs.append(replace(run, batch=runs[0].batch) if runs else run)
    if len(runs) == 1:
        return runs[0]
    episodes = range(len(runs[0].metrics))
    agents = runs[0].batch.scenario.agent_names
    return Evaluation(
        name,
        runs[0].batch,
        [mean_metrics([run.metrics[k] for run in runs]) for k in episodes],
        [
            {agent: mean_metrics([run.per_agent[k][agent] for run in runs]) for agent in agents}
            for k in episodes
        ],
        np.concatenate([run.by_seed for run in runs]),
        runs[0].kind,
    )


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
    by_seed = np.array([[each["objective"] for each in metrics]])
    return Evaluation(name, batch, metrics, per_agent, by_seed, kind)
