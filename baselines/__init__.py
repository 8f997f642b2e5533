"""Classical allocators by name.

A policy is a function from a `View` to fractions of the platform. `DEFAULTS` lists those that decide on
what they see (`baselines.online`), `POLICIES` the same ones with tuned constants, and `PRIVILEGED` those
that know the future (`baselines.bounds`); a new one is a line of `DEFAULTS`, or a call of `register` from
outside. Those of a cluster are functions from a `ClusterView`, `baselines.cluster.CLUSTER_POLICIES`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from baselines import online
from baselines.bounds import Bound, Clairvoyant, Schedule, bound, feasible_schedule, lower_bounds
from baselines.cluster import CLUSTER_POLICIES
from baselines.online import adaptive, adaptive_smoothed, round_robin, static
from baselines.tunable import constants_of, with_constants
from baselines.tuned import tuned
from gpualloc_env.allocator.receding_horizon import Assumed
from gpualloc_env.scenario.scenario import Scenario
from gpualloc_env.simulation.observation import View
from gpualloc_env.simulation.state import Array

Policy = Callable[[Any], Array]
"""Reads a view of (N,) or (B, N) arrays, returns fractions of the platform of the same shape; in a cluster it
reads a `ClusterView` and returns fractions of each GPU, shaped as its shares."""


@runtime_checkable
class Stateful(Protocol):
    """A policy with memory: every rollout needs an instance of its own."""

    def fresh(self) -> Policy:
        """The same policy, remembering nothing."""
        ...


@runtime_checkable
class Planner(Protocol):
    """A policy that may plan as receding-horizon control does, on assumptions that it can tell."""

    def assumed(self, view: View) -> Assumed | None:
        """What it assumes in deciding on a view; None where it does not plan."""
        ...


DEFAULTS: dict[str, Policy] = {
    "static": online.static,
    "round-robin": online.round_robin,
    "adaptive": online.adaptive,
    "adaptive-smoothed": online.adaptive_smoothed,
    "queue-aware": online.QueueAware(),
    "cmu": online.cmu,
    "generalised-cmu": online.GeneralisedCmu(),
    "max-weight": online.max_weight,
    "drift-plus-penalty": online.DriftPlusPenalty(),
    "max-min-fair": online.MaxMinFair(),
    "proportional-fair": online.ProportionalFair(),
    "square-root-staffing": online.SquareRootStaffing(),
    "autoscaler": online.Autoscaler(),
    "hysteresis": online.Hysteresis(),
    "receding-horizon": online.RecedingHorizon(),
    "square-root-capacity": online.SquareRootCapacity(),
    "least-slack": online.LeastSlack(),
    "receding-horizon-batch": online.RecedingHorizonBatch(),
    "kubernetes-hpa": online.KubernetesHpa(),
    "knative": online.Knative(),
}
"""Every policy with the constants that its file declares."""


def baselines_of(scenario: Scenario) -> dict[str, Policy]:
    """The policies that decide on what they see in a scenario, with the constants that they declare."""
    return CLUSTER_POLICIES if scenario.nodes else DEFAULTS


def algorithm_1_of(scenario: Scenario) -> str:
    """The name of the paper's Algorithm 1 among the baselines of a scenario."""
    return "hierarchical" if scenario.nodes else "adaptive"


def is_baseline(name: str) -> bool:
    """Whether a name is one of a policy of either kind of scenario, as `policy_for` takes it."""
    upper, plus, lower = name.partition("+")
    return name in DEFAULTS or (upper in CLUSTER_POLICIES and (not plus or lower in DEFAULTS))


def policy_for(name: str, scenario: str | Scenario) -> Policy:
    """The policy of a name, with the constants that were tuned for a scenario where there are some.

    Args:
        name: a name in `POLICIES`; for a cluster one in `CLUSTER_POLICIES`, or one with another policy below
            that splits each GPU, `hierarchical+proportional-fair`.
        scenario: a scenario, or the `key` of one with a pool of GPUs, the name of a registered one; for one
            that was never tuned for, the constants are the defaults.

    Raises:
        KeyError: a scenario of that kind has no such policy.
    """
    key, known = (scenario, DEFAULTS) if isinstance(scenario, str) else (scenario.key, baselines_of(scenario))
    constants, upper = tuned().get(key, {}), name.partition("+")[0]
    policy = untuned(name, known)
    # One that was tuned above another policy splits the GPUs differently now.
    placement = {each: value for each, value in constants.get(upper, {}).items() if "." not in each}
    own = constants.get(name, placement)
    return with_constants(policy, own) if own else policy


def untuned(name: str, known: Mapping[str, Policy]) -> Policy:
    """The policy of a name as `policy_for` takes it, with the constants that are declared.

    Raises:
        KeyError: `known` has no such policy, or there is none to stand below it.
    """
    upper, _, lower = name.partition("+") if known is CLUSTER_POLICIES else (name, "", "")
    return with_constants(known[upper], {"lower": DEFAULTS[lower]}) if lower else known[upper]


def fresh(policy: Policy) -> Policy:
    """The policy itself, or an instance of its own where the policy has memory."""
    return policy.fresh() if isinstance(policy, Stateful) else policy


POLICIES: dict[str, Policy] = {name: policy_for(name, "serverless") for name in DEFAULTS}
"""Every policy with the constants tuned for the default scenario."""

PRIVILEGED: dict[str, Callable[[Scenario, int, int], Policy]] = {
    "clairvoyant": Clairvoyant,
}
"""Policies that know the future: each is made for a scenario, a number of episodes and the first one's seed.

They show what could be attained, and are to be labelled as such beside policies that do not know it.
"""


def register(name: str, policy: Policy) -> None:
    """Add a policy to `DEFAULTS`, and to `POLICIES` with the constants that were tuned for it, if any.

    Raises:
        TypeError: it cannot be called.
        ValueError: a policy of that name exists, or the name would be read as that of a module's function or
            as every policy.
    """
    if not callable(policy):
        raise TypeError(f"policy {name!r} must be a function of a view, got {policy!r}")
    if name == "all":
        raise ValueError("'all' stands for every policy in a command; give the policy another name")
    if not name or ":" in name:
        raise ValueError(f"a policy's name must have letters and no colon, got {name!r}")
    if is_baseline(name) or name in PRIVILEGED:
        raise ValueError(f"there is a policy named {name!r} already; choose another name")
    DEFAULTS[name] = policy
    POLICIES[name] = policy_for(name, "serverless")


__all__ = [
    "CLUSTER_POLICIES",
    "DEFAULTS",
    "POLICIES",
    "PRIVILEGED",
    "Bound",
    "Clairvoyant",
    "Planner",
    "Policy",
    "Schedule",
    "Stateful",
    "adaptive",
    "adaptive_smoothed",
    "algorithm_1_of",
    "baselines_of",
    "bound",
    "constants_of",
    "feasible_schedule",
    "fresh",
    "is_baseline",
    "lower_bounds",
    "policy_for",
    "register",
    "round_robin",
    "static",
    "untuned",
    "with_constants",
]
