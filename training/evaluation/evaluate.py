"""The one rollout loop: a policy on held-out episodes, all of them side by side."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from baselines import Policy, fresh
from gpualloc_env.batch import Batch
from gpualloc_env.cluster_batch import ClusterBatch, batch_of
from gpualloc_env.metrics import Metrics, episode_metrics, mean_metrics
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.state import OUTCOME, AnyArray, Array

Kind = Literal["online", "learned", "privileged"]
"""Whether a policy is a baseline, was trained, or knows the future."""


LARGEST_RECORD = 2**28
"""Bytes of recorded steps that are held at a time: more episodes are played part by part."""


@dataclass(frozen=True)
class Steps:
    """Every step of E episodes, summed up as they are played: as much for a thousand of them as for one."""

    mean: AnyArray
    """Means over the episodes, (T, N) of OUTCOME."""
    first: AnyArray
    """The first episode, (T, N) of OUTCOME."""
    agents: AnyArray
    """The agents of the first episode, (N,) of AGENT."""
    throughput: Array
    """T of each agent, its mean over the episodes, (N,) [requests/s]."""
    mean_rate: Array
    """λ̄ of each agent, its mean over the episodes, (N,) [requests/s]."""
    calls: AnyArray | None = None
    """The calls of the first episode, (C,) of CALL, where agents serve calls."""
    resident: AnyArray | None = None
    """Where in a cluster the models are loaded at the end of the first episode, (N, K) bool."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that one policy did in E episodes of a scenario.

    A policy of S training seeds has the means of their metrics, and the steps of the first.
    """

    policy: str
    scenario: Scenario
    steps: Steps
    """What is kept of every step."""
    metrics: list[Metrics]
    """Metrics of each episode over all agents."""
    per_agent: list[dict[str, Metrics]]
    """Metrics of each episode by agent."""
    by_seed: Array
    """J of each training seed and episode, (S, E); S is 1 for a policy that was not trained."""
    kind: Kind = "online"
    bound: float = np.nan
    """Mean J of the episodes that no policy can undercut; NaN where it was not computed."""
    headroom_closed: float = np.nan
    """The part that it closes of what Algorithm 1 leaves to gain over the bound; NaN where unknown."""

    @cached_property
    def objective(self) -> Array:
        """J of each episode, (E,), the mean over training seeds."""
        return self.by_seed.mean(axis=0)

    @property
    def label(self) -> str:
        """Its name wherever a person reads it."""
        return label(self.policy, self.kind, len(self.by_seed))


def label(policy: str, kind: Kind, seeds: int) -> str:
    """What a policy is called in every table, figure and chart."""
    if kind == "privileged":
        return f"{policy} (knows the future)"
    return policy if seeds <= 1 else f"{policy} ({seeds} seeds)"


def joined(name: str, played: Iterable[Evaluation]) -> Evaluation:
    """One evaluation of the training seeds of a policy, each on the same episodes."""
    runs = list(played)
    if len(runs) == 1:
        return runs[0]
    episodes = range(len(runs[0].metrics))
    agents = runs[0].scenario.agent_names
    return Evaluation(
        name,
        runs[0].scenario,
        runs[0].steps,
        [mean_metrics([run.metrics[k] for run in runs]) for k in episodes],
        [
            {agent: mean_metrics([run.per_agent[k][agent] for run in runs]) for agent in agents}
            for k in episodes
        ],
        np.concatenate([run.by_seed for run in runs]),
        runs[0].kind,
    )


def rollout(
    policy: Policy, scenario: Scenario, episodes: int, seed: int | Sequence[int], *, record: bool
) -> Batch:
    """Play the episodes with seeds `seed`, `seed` + 1, …, `seed` + `episodes` − 1, each to its end.

    A policy with memory begins with none: nothing passes from one rollout to the next.

    Args:
        policy: who decides.
        scenario: what to simulate.
        episodes: how many environments are advanced side by side.
        seed: of the first, or of each.
        record: keep every step, as metrics need it; without it only the objective can be read.
    """
    policy = fresh(policy)
    batch = batch_of(scenario, episodes, record=record)
    batch.seed(seed)
    batch.reset()
    for _ in range(scenario.steps):
        batch.step(policy(batch.view))
    return batch


def evaluate(
    name: str, policy: Policy, scenario: Scenario, episodes: int, seed: int, *, kind: Kind = "online"
) -> Evaluation:
    """Run a policy on the episodes with seeds `seed`, `seed` + 1, …, `seed` + `episodes` − 1.

    Every policy that is given the same scenario and seed meets exactly the same arrivals. Episodes whose
    recorded steps would take more than `LARGEST_RECORD` bytes are played part by part, with the same
    results; a policy that knows the future is made for all of them and plays all of them at once.
    """
    each = scenario.steps * len(scenario.agents) * OUTCOME.itemsize
    at_once = episodes if kind == "privileged" else max(1, min(episodes, LARGEST_RECORD // each))
    metrics: list[Metrics] = []
    per_agent: list[dict[str, Metrics]] = []
    parts: list[Steps] = []
    for first in range(0, episodes, at_once):
        count = min(at_once, episodes - first)
        batch = rollout(policy, scenario, count, seed + first, record=True)
        for b in range(count):
            overall = dict(episode_metrics(batch, b))
            per_agent.append(overall.pop("per_agent"))  # pyright: ignore
            metrics.append(overall)  # pyright: ignore
        parts.append(_summed(batch))
    by_seed = np.array([[each["objective"] for each in metrics]])
    return Evaluation(name, scenario, _mean(parts, episodes), metrics, per_agent, by_seed, kind)


def _summed(batch: Batch) -> Steps:
    """Sums over the episodes of a batch where `Steps` has means."""
    served = batch.scenario.service == "requests"
    return Steps(
        mean=batch.history.view(np.float64).sum(axis=0),
        first=batch.history[0].copy(),
        agents=batch.agents[0].copy(),
        throughput=batch.agents["throughput"].sum(axis=0),
        mean_rate=batch.state["mean_rate"].sum(axis=0),
        calls=batch.service.calls[0, : batch.service.run["calls"][0]].copy() if served else None,
        resident=batch.shown.resident[0].copy() if isinstance(batch, ClusterBatch) else None,
    )


def _mean(parts: Sequence[Steps], episodes: int) -> Steps:
    """The means of some sums."""
    return replace(
        parts[0],
        mean=(np.sum([part.mean for part in parts], axis=0) / episodes).view(OUTCOME),
        throughput=sum(part.throughput for part in parts) / episodes,
        mean_rate=sum(part.mean_rate for part in parts) / episodes,
    )
