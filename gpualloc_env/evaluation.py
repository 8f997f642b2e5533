"""How good is a policy of one's own? The same held-out episodes as every other policy's."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from gpualloc_env.cluster_env import GPUClusterEnv
from gpualloc_env.env import GPUAllocEnv
from gpualloc_env.metrics import Metrics, mean_metrics
from gpualloc_env.scenario.held_out import episodes_at_most, held_out_scenario
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.placement import ClusterView
from gpualloc_env.simulation.state import AnyArray

OwnPolicy = Callable[[Any], AnyArray]
"""From an observation, (N, F), or a `View` of (N,) arrays to fractions of the platform, (N,).

In a cluster from its `Dict` of arrays, or a `ClusterView`, to fractions of each GPU, (N, K).
"""
_VIEWS = (View, "View", ClusterView, "ClusterView")


def sees_view(policy: OwnPolicy) -> bool:
    """Whether a policy reads the view: its first argument is named `view`, or annotated so."""
    try:
        parameters = list(inspect.signature(policy).parameters.values())
    except ValueError:  # written in C
        return False
    return bool(parameters) and (parameters[0].name == "view" or parameters[0].annotation in _VIEWS)


def begun(policy: OwnPolicy) -> OwnPolicy:
    """The policy as it begins an episode, with a memory of its own.

    Raises:
        TypeError: it can be neither copied nor made anew.
    """
    fresh = getattr(policy, "fresh", None)
    if callable(fresh):
        return cast(OwnPolicy, fresh())
    try:
        return deepcopy(policy)
    except Exception as error:  # whatever its parts raise that cannot be copied
        raise TypeError(
            f"{policy!r} cannot be copied for each episode: {error}; give it a method fresh() that "
            "returns it as it begins an episode, itself where it has no memory"
        ) from error


def evaluate(
    policy: OwnPolicy,
    scenario: str | Path | Scenario = "serverless",
    episodes: int = 100,
    seed: int = 10000,
    **changes: Any,
) -> dict[str, float]:
    """Play the episodes seeded `seed`, `seed` + 1, …, and give the mean of every metric.

    These are the episodes of `python -m training.compare` with the same seed, of a log the windows held out
    for evaluation unless another `split` is asked for: results can be compared.

    Args:
        policy: a function of the observation, (N, F), or, where its argument is named `view`, of the
            `View`; it returns fractions of the platform, (N,). In a cluster it takes its observation or its
            `ClusterView`, and returns fractions of each GPU, (N, K). One with memory begins each
            episode as what its method `fresh` returns, or without one as a copy of what it is here.
        scenario: a name in `SCENARIOS` or `CLUSTERS`, the path of a `.toml` file, or a scenario itself.
        episodes: how many; of a log each window once at most.
        seed: of the first.
        changes: the fields of `Overrides` by name.

    Raises:
        TypeError: the policy cannot be called, or neither copied nor made anew.
        ValueError: no episodes, or an unknown scenario or change.

    Returns:
        `objective` (J, lower is better) and the other metrics of `episode_metrics`, each the mean over
        the episodes in which it is defined.
    """
    if not callable(policy):
        raise TypeError(
            f"policy must be a function, got {policy!r}; gpualloc_env.policy makes one of a baseline's name"
        )
    made = held_out_scenario(scenario, **changes)
    env, reads_view = (GPUClusterEnv if made.nodes else GPUAllocEnv)(made), sees_view(policy)
    played: list[Metrics] = []
    for k in range(episodes_at_most(episodes, made)):
        own, truncated = begun(policy), False
        observation, _ = env.reset(seed=seed + k)
        while not truncated:
            observation, _, _, truncated, _ = env.step(own(env.view if reads_view else observation))
        metrics = env.episode_metrics()
        del metrics["per_agent"]
        played.append(metrics)
    return mean_metrics(played)
